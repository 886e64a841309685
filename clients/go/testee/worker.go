package main

import (
	"context"
	"errors"
	"sync"
	"time"

	milepost "milepost.dev/go"
)

// worker is a running worker, whose handlers wait for commands.
type worker struct {
	stop  context.CancelFunc
	ended chan struct{}
	err   error
	begun chan *work
}

// end is how a handler ends.
type end struct {
	result any
	err    error
}

// work is the work of one handler.
type work struct {
	*milepost.Work
	ends chan end

	mu    sync.Mutex
	cause error
}

func startWorker(t *testee, ctx context.Context, c *command) (any, error) {
	connection, err := take(t, t.clients, c.Client)
	if err != nil {
		return nil, err
	}
	w := &worker{ended: make(chan struct{}), begun: make(chan *work, 1000)}
	handlers := map[string]milepost.Handler{}
	for _, function := range c.Functions {
		handlers[function] = w.handle
	}
	running, err := milepost.NewWorker(connection.Client, handlers, milepost.WorkerOptions{
		Concurrency: c.Concurrency, Name: c.Name, Lease: c.Lease.duration(), Grace: graceOf(c),
	})
	if err != nil {
		return nil, err
	}
	ctx, w.stop = context.WithCancel(ctx)
	go func() {
		defer close(w.ended)
		w.err = running.Run(ctx)
	}()
	return object{"worker": put(t, t.workers, w)}, nil
}

// graceOf returns the grace; a zero of the command means none, and not the default.
func graceOf(c *command) time.Duration {
	if c.Grace != nil && *c.Grace == 0 {
		return -1
	}
	return durationOf(c.Grace, 0)
}

// handle waits for the command that ends the work, or for the end of the context.
func (w *worker) handle(ctx context.Context, held *milepost.Work) (any, error) {
	current := &work{Work: held, ends: make(chan end, 1)}
	w.begun <- current
	select {
	case end := <-current.ends:
		return end.result, end.err
	case <-ctx.Done():
		current.mu.Lock()
		defer current.mu.Unlock()
		current.cause = context.Cause(ctx)
		return nil, current.cause
	}
}

func nextWork(t *testee, _ context.Context, c *command) (any, error) {
	w, err := take(t, t.workers, c.Worker)
	if err != nil {
		return nil, err
	}
	select {
	case begun := <-w.begun:
		answer := object{
			"work": put(t, t.works, begun), "operation": fromOperation(begun.Operation()),
		}
		if begun.HasCheckpoint() {
			var checkpoint any
			if err := begun.DecodeCheckpoint(&checkpoint); err != nil {
				return nil, err
			}
			answer["checkpoint"] = fromValue(checkpoint)
		}
		return answer, nil
	case <-w.ended:
		if w.err != nil {
			return nil, w.err
		}
		return nil, errors.New("the worker has ended")
	}
}

func stopWorker(t *testee, _ context.Context, c *command) (any, error) {
	w, err := take(t, t.workers, c.Worker)
	if err != nil {
		return nil, err
	}
	w.stop()
	<-w.ended
	return object{}, w.err
}

func workProgress(t *testee, _ context.Context, c *command) (any, error) {
	current, err := take(t, t.works, c.Work)
	if err != nil {
		return nil, err
	}
	report, err := c.report()
	if err != nil {
		return nil, err
	}
	return object{}, current.Report(report)
}

func workState(t *testee, _ context.Context, c *command) (any, error) {
	current, err := take(t, t.works, c.Work)
	if err != nil {
		return nil, err
	}
	state := object{"stopped": nil, "cancel_requested": false}
	select {
	case <-current.CancelRequested():
		state["cancel_requested"] = true
	default:
	}
	current.mu.Lock()
	defer current.mu.Unlock()
	if current.cause != nil {
		state["stopped"] = className(current.cause)
	}
	return state, nil
}

func workReturn(t *testee, _ context.Context, c *command) (any, error) {
	current, err := take(t, t.works, c.Work)
	if err != nil {
		return nil, err
	}
	value, err := valueOf(c.Result)
	if err != nil {
		return nil, err
	}
	current.ends <- end{result: value}
	return object{}, nil
}

func workThrow(t *testee, _ context.Context, c *command) (any, error) {
	current, err := take(t, t.works, c.Work)
	if err != nil {
		return nil, err
	}
	cause := errors.New(c.Message)
	switch c.Kind {
	case "permanent":
		cause = &milepost.PermanentFailure{Code: c.Code, Message: c.Message}
	case "retry_later":
		cause = &milepost.RetryLater{Delay: c.Delay.duration(), Code: c.Code, Message: c.Message}
	case "acknowledge":
		cause = milepost.ErrCancelAcknowledged
	}
	current.ends <- end{err: cause}
	return object{}, nil
}
