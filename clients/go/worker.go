package milepost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// DefaultConcurrency bounds the operations that a worker does at once.
	DefaultConcurrency = 10
	// DefaultLease is the time after which another worker gets an operation of a dead worker.
	DefaultLease = 30 * time.Second
	// DefaultGrace is how long handlers may go on after the worker was stopped.
	DefaultGrace = 25 * time.Second

	// maxConcurrency is the number of operations that one progress stream carries.
	maxConcurrency = 1_000
	maxPerClaim    = 100
	// claimTimeout is how long one claim waits for work: less than the deadline of a call.
	claimTimeout = 8 * time.Second
	// maxPatience is how long a handler may occupy its worker after its operation was taken away.
	maxPatience = 5 * time.Second
	// stopPatience is how long handlers may go on after the grace, when their contexts have ended.
	stopPatience = 2 * time.Second
	// releaseTimeout bounds the releases of a worker that stops.
	releaseTimeout = 2 * time.Second
)

// WorkerOptions are the options of a [Worker]. The zero value has the defaults.
type WorkerOptions struct {
	// Concurrency bounds the operations at once: [DefaultConcurrency], at most 1,000.
	Concurrency int
	// Name is the name of the worker, shown to people.
	Name string
	// Lease is the time after which another worker gets an operation of a dead worker:
	// [DefaultLease], from 5 s to 1 h. It is renewed when a third of it has passed.
	Lease time.Duration
	// Grace is how long handlers may go on after the worker was stopped: [DefaultGrace]. A negative
	// one stops them at once.
	Grace time.Duration
	// Logger logs failed attempts and refused claims: [slog.Default].
	Logger *slog.Logger
}

// Worker claims operations of some functions, and calls a handler for each.
type Worker struct {
	client   *Client
	handlers map[string]Handler
	options  WorkerOptions

	mu         sync.Mutex
	executions map[*execution]struct{}
	hasRoom    chan struct{} // holds one token when an execution has ended
	stop       context.CancelCauseFunc
	left       chan struct{} // closed at the end of Run
}

// NewWorker returns a worker with a handler for each function.
func NewWorker(
	client *Client, handlers map[string]Handler, options WorkerOptions,
) (*Worker, error) {
	if len(handlers) == 0 {
		return nil, errors.New("milepost: a worker needs handlers")
	}
	for function, handler := range handlers {
		if handler == nil {
			return nil, fmt.Errorf("milepost: the handler of %q is nil", function)
		}
	}
	options = options.withDefaults()
	if options.Concurrency < 1 || options.Concurrency > maxConcurrency {
		return nil, fmt.Errorf("milepost: concurrency must lie between 1 and %d", maxConcurrency)
	}
	return &Worker{
		client: client, handlers: maps.Clone(handlers), options: options,
		executions: make(map[*execution]struct{}), hasRoom: make(chan struct{}, 1),
	}, nil
}

func (o WorkerOptions) withDefaults() WorkerOptions {
	if o.Concurrency == 0 {
		o.Concurrency = DefaultConcurrency
	}
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Run works until the context ends, and returns nil then. Another error means that claims are
// refused for good: the API key is not valid, or is not granted one of the functions.
//
// At the end it claims no more, and waits for the handlers within the grace. Then their contexts
// end, and what is left is released: another worker gets it at once, and it is no failed attempt.
// Releases are best effort; without one, another worker gets the operation when its lease runs out.
//
// A worker runs once at a time.
func (w *Worker) Run(ctx context.Context) error {
	claiming, err := w.begin(ctx)
	if err != nil {
		return err
	}
	defer w.end()
	err = w.claimUntilStopped(claiming, ctx)
	grace := w.options.Grace
	if isClosed := errors.Is(context.Cause(claiming), ErrClosed) || errors.Is(err, ErrClosed); isClosed {
		err, grace = ErrClosed, 0
	}
	w.drain(grace)
	return err
}

func (w *Worker) begin(ctx context.Context) (context.Context, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop != nil {
		return nil, errors.New("milepost: the worker runs already")
	}
	claiming, stop := context.WithCancelCause(ctx)
	w.stop, w.left = stop, make(chan struct{})
	w.client.addWorker(w)
	return claiming, nil
}

func (w *Worker) end() {
	w.client.removeWorker(w)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop(context.Canceled)
	w.stop = nil
	close(w.left)
}

// leave stops the worker at once, because of the reason, and returns when it has ended.
func (w *Worker) leave(reason error) {
	w.mu.Lock()
	stop, left := w.stop, w.left
	w.mu.Unlock()
	if stop != nil {
		stop(reason)
		<-left
	}
}

func (w *Worker) claimUntilStopped(claiming, ctx context.Context) error {
	functions := slices.Sorted(maps.Keys(w.handlers))
	backoff := newBackoff(maxPause)
	for claiming.Err() == nil {
		free := w.options.Concurrency - w.count()
		if free == 0 {
			select {
			case <-w.hasRoom:
			case <-claiming.Done():
			}
			continue
		}
		operations, err := w.client.Claim(claiming, ClaimRequest{
			Functions: functions, MaxOperations: min(free, maxPerClaim), Lease: w.options.Lease,
			Worker: w.options.Name, Timeout: claimTimeout,
		})
		switch {
		case err == nil:
			backoff.reset()
			for _, operation := range operations {
				w.start(ctx, operation)
			}
		case claiming.Err() != nil:
			return nil
		case !isSurvived(err):
			return err
		default:
			w.options.Logger.Warn("milepost: no work was claimed", "error", err)
			_ = sleep(claiming, backoff.pause(err)) // the loop sees the end
		}
	}
	return nil
}

// isSurvived returns true for the refusals after which a worker claims again.
func isSurvived(err error) bool {
	return isTemporary(err) || is[*LimitReachedError](err) || is[*UndecodableAnswerError](err)
}

func (w *Worker) start(ctx context.Context, operation *Operation) {
	handler := w.handlers[operation.Function]
	e := newExecution(ctx, w.client, operation, handler, w.options.Logger)
	w.mu.Lock()
	w.executions[e] = struct{}{}
	w.mu.Unlock()
	go func() {
		e.run()
		w.mu.Lock()
		delete(w.executions, e)
		w.mu.Unlock()
		select {
		case w.hasRoom <- struct{}{}:
		default:
		}
	}()
}

func (w *Worker) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.executions)
}

// running returns the executions that go on.
func (w *Worker) running() []*execution {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.executions))
}

// drain waits for the handlers within the grace, and releases the other operations.
func (w *Worker) drain(grace time.Duration) {
	executions := w.running()
	if waitAll(executions, grace) {
		return
	}
	for _, e := range executions {
		e.leave()
	}
	time.AfterFunc(stopPatience, func() { // ends that are still tried again
		for _, e := range executions {
			e.endNow()
		}
	})
	waitAll(executions, stopPatience+releaseTimeout+time.Second)
}

// waitAll returns true if all executions end within the timeout.
func waitAll(executions []*execution, timeout time.Duration) bool {
	timer := time.NewTimer(max(0, timeout))
	defer timer.Stop()
	for _, e := range executions {
		select {
		case <-e.done:
		case <-timer.C:
			return false
		}
	}
	return true
}
