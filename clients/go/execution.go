package milepost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	pb "milepost.dev/go/gen/milepost/v1"
)

// Handler does the work of one operation, and returns its result: nil, any value that
// [encoding/json] can write, or a protobuf message. An error ends the attempt; the operation is
// tried again, if it has an attempt left, unless the error is a [PermanentFailure]. So does a panic,
// which ends nothing else.
//
// The context ends when the handler must stop. Its [context.Cause] says why: a [CancelledError], a
// [StaleAttemptError] (the lease is lost), an [OperationExpiredError], or [ErrWorkerStopped].
type Handler func(ctx context.Context, work *Work) (any, error)

// outcome is what a handler has returned.
type outcome struct {
	result any
	err    error
}

// execution is one operation in the hands of a worker, until its handler has ended or is given up.
type execution struct {
	client  *Client
	work    *Work
	handler Handler
	log     *slog.Logger
	// ctx is that of the handler. endCtx bounds the end of the operation: it ends when the worker
	// cannot wait any longer.
	ctx    context.Context
	cancel context.CancelCauseFunc
	endCtx context.Context
	endNow context.CancelFunc
	done   chan struct{}
	// endTimeout bounds the tries of the end; 0 means no bound.
	endTimeout time.Duration
	// err is what Do returns; only run writes it.
	err error
}

func newExecution(
	ctx context.Context, client *Client, operation *Operation, handler Handler, log *slog.Logger,
) *execution {
	e := &execution{
		client: client, handler: handler, done: make(chan struct{}),
		log: log.With("operation_id", operation.ID, "attempt", operation.Attempt),
	}
	base := context.WithoutCancel(ctx) // what runs may end within the grace
	e.ctx, e.cancel = context.WithCancelCause(base)
	e.endCtx, e.endNow = context.WithCancel(base)
	e.work = newWork(client, operation, e.stop)
	return e
}

// stop ends the work for a reason of the service: there is nothing left to end.
func (e *execution) stop(reason error) {
	e.log.Info("milepost: the operation was taken away", "reason", reason)
	e.cancel(reason)
	e.endNow()
}

// leave asks the handler to stop, because the worker does.
func (e *execution) leave() { e.cancel(ErrWorkerStopped) }

// run calls the handler and ends the operation, whatever happens.
func (e *execution) run() {
	defer close(e.done)
	defer e.endNow()
	defer e.cancel(context.Canceled)
	defer e.work.detach()
	outcome, ok := e.await()
	switch {
	case !ok || isOver(context.Cause(e.ctx)):
		e.err = context.Cause(e.ctx)
	case outcome.err != nil && e.isLeft():
		e.err = outcome.err
		e.release()
	default:
		if e.endTimeout > 0 {
			defer time.AfterFunc(e.endTimeout, e.endNow).Stop()
		}
		e.err = errors.Join(outcome.err, e.finish(outcome))
	}
}

func (e *execution) isLeft() bool { return errors.Is(context.Cause(e.ctx), ErrWorkerStopped) }

// await returns the outcome of the handler; false if it goes on although it must stop.
func (e *execution) await() (outcome, bool) {
	returned := make(chan outcome, 1)
	go func() { returned <- e.call() }()
	select {
	case outcome := <-returned:
		return outcome, true
	case <-e.ctx.Done():
	}
	select {
	case outcome := <-returned:
		return outcome, true
	case <-time.After(e.patience()):
	}
	e.log.Warn("milepost: the handler goes on although its context has ended")
	if e.isLeft() {
		e.release()
	}
	return outcome{}, false
}

func (e *execution) patience() time.Duration {
	if e.isLeft() {
		return stopPatience
	}
	return maxPatience
}

// call calls the handler, and returns its outcome, whatever it does.
func (e *execution) call() outcome {
	result, err := isolated(func() (any, error) { return e.handler(e.ctx, e.work) })
	return outcome{result, err}
}

// finish ends the operation with the outcome. It returns why the operation does not end so.
func (e *execution) finish(end outcome) error {
	err := e.work.storeLastReport(e.endCtx)
	var problem error
	if err == nil {
		problem, err = e.end(end)
	}
	switch {
	case err == nil:
		return problem
	case isOver(context.Cause(e.ctx)):
		err = context.Cause(e.ctx)
	case isOver(err):
		e.log.Info("milepost: the operation was taken away", "reason", err)
	case e.isLeft():
		e.release()
	default:
		e.log.Error("milepost: the operation is left unfinished", "error", err)
	}
	return err
}

// end ends the operation. The problem is that of a result which cannot be stored; err is the final
// refusal.
func (e *execution) end(end outcome) (problem, err error) {
	if end.err == nil {
		err := e.complete(end.result)
		if !isUnstorable(err) {
			return nil, err
		}
		problem = &unstorableResult{err}
		end.err = problem
	}
	if isAcknowledgement(end.err) {
		err := e.acknowledge()
		refusal, ok := as[*CancellationNotRequestedError](err)
		if !ok {
			return nil, err
		}
		end.err = &RetryLater{Code: "CancellationNotRequested", Message: refusal.Message, Err: err}
	}
	return problem, e.fail(end.err)
}

// isAcknowledgement returns true for the error that acknowledges a cancel.
func isAcknowledgement(err error) bool {
	found, _ := isolated(func() (bool, error) { return errors.Is(err, ErrCancelAcknowledged), nil })
	return found
}

// isUnstorable returns true if another content may be accepted. A message that is too large for
// gRPC, or for a proxy, is refused without a reason.
func isUnstorable(err error) bool {
	return is[*ValueError](err) || is[*InvalidRequestError](err) || isUnexplained(err) ||
		is[*panicError](err) || errors.Is(err, errGoexit)
}

func (e *execution) complete(result any) error {
	packed, err := isolated(func() (*anypb.Any, error) { return toAny(result) })
	if err != nil {
		return err
	}
	write := e.work.write()
	return untilFinal(e.endCtx, len(packed.GetValue()), func(ctx context.Context) error {
		_, err := e.client.complete(ctx, e.work.operation.ID, packed, write)
		return err
	})
}

// fail ends the attempt because of the error. One that is refused is replaced by one that says so.
func (e *execution) fail(reason error) error {
	request, err := isolated(func() (*pb.FailOperationRequest, error) {
		e.logFailure(reason)
		return failureOf(reason).toMessage()
	})
	if err == nil {
		err = e.sendFailure(request)
	}
	if isUnstorable(err) {
		message := storable("The error was refused: "+err.Error(), maxMessageLength)
		err = e.sendFailure(&pb.FailOperationRequest{
			Errors: []*pb.OperationError{{Code: "InvalidError", Message: message}},
		})
	}
	return err
}

func (e *execution) logFailure(reason error) {
	if problem, ok := as[*panicError](reason); ok {
		e.log.Error("milepost: the handler panicked", "panic", problem.text, "stack", string(problem.stack))
	} else {
		e.log.Warn("milepost: the attempt failed", "error", safeText(reason))
	}
}

func (e *execution) sendFailure(request *pb.FailOperationRequest) error {
	write := e.work.write()
	return untilFinal(e.endCtx, proto.Size(request), func(ctx context.Context) error {
		_, err := e.client.fail(ctx, e.work.operation.ID, request, write)
		return err
	})
}

func (e *execution) acknowledge() error {
	write := e.work.write()
	return untilFinal(e.endCtx, 0, func(ctx context.Context) error {
		_, err := e.client.AcknowledgeCancellation(ctx, e.work.operation.ID, write)
		return err
	})
}

// release gives the operation back, after its last report. If a cancel is requested, it is
// acknowledged instead. Without an answer, the lease runs out.
func (e *execution) release() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), releaseTimeout)
	defer cancel()
	err := e.giveBack(ctx)
	e.work.detach()
	if err != nil {
		e.log.Info("milepost: the operation was not released", "error", err)
	}
}

func (e *execution) giveBack(ctx context.Context) error {
	if err := e.work.storeLastReport(ctx); err != nil {
		return err
	}
	id, write := e.work.operation.ID, e.work.write()
	if e.work.isCancelRequested() {
		_, err := e.client.AcknowledgeCancellation(ctx, id, write)
		return err
	}
	_, err := e.client.Release(ctx, id, ReleaseRequest{Write: write, Reason: "the worker stops"})
	return err
}

// isolated calls a function that runs code of the user: a handler, or the methods of its results
// and errors. It returns a panic as an error, and so the end of the goroutine, which is for the
// function alone.
func isolated[T any](call func() (T, error)) (result T, err error) {
	err = errGoexit
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		defer func() {
			if problem := recover(); problem != nil {
				err = &panicError{fmt.Sprint(problem), debug.Stack()}
			}
		}()
		result, err = call()
	}()
	<-finished
	return result, err
}
