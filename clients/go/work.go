package milepost

import (
	"context"
	"sync"

	pb "milepost.dev/go/gen/milepost/v1"
)

// Work is one operation in the hands of a [Handler]. Its methods report on the progress stream that
// all work of a client shares, and do not wait for an answer.
type Work struct {
	client    *Client
	operation *Operation
	held      *held

	requestOnce     sync.Once
	cancelRequested chan struct{}
}

func newWork(client *Client, operation *Operation, onOver func(error)) *Work {
	work := &Work{
		client: client, operation: operation, cancelRequested: make(chan struct{}),
	}
	if !operation.CancelRequestTime.IsZero() {
		work.requestCancel()
	}
	work.held = client.progress.hold(operation, onOver, work.requestCancel)
	return work
}

// Operation returns the operation as it was claimed.
func (w *Work) Operation() *Operation { return w.operation }

// HasCheckpoint returns true if an earlier attempt has saved a checkpoint.
func (w *Work) HasCheckpoint() bool { return w.operation.HasCheckpoint() }

// DecodeCheckpoint stores the checkpoint of an earlier attempt in the value that into points to; see
// [Operation.DecodeCheckpoint].
func (w *Work) DecodeCheckpoint(into any) error { return w.operation.DecodeCheckpoint(into) }

// Progress reports the completed share of the work, from 0.0 to 1.0, and the present step; an empty
// message keeps the last one. It returns the error of an earlier report that was refused, such as
// a [ProgressDecreaseError]; a [CancelledError], a [StaleAttemptError] or an
// [OperationExpiredError] if the work must stop.
func (w *Work) Progress(progress float64, message string) error {
	return w.Report(Report{Progress: &progress, Message: message})
}

// SaveCheckpoint saves the state of the work for the next attempt: JSON or a protobuf message of at
// most 65,536 bytes. It is stored once Flush has returned.
func (w *Work) SaveCheckpoint(checkpoint any) error {
	return w.Report(Report{Checkpoint: checkpoint})
}

// Report reports progress, a message and a checkpoint together; they are stored together.
func (w *Work) Report(report Report) error {
	checkpoint, err := toCheckpoint(report.Checkpoint)
	if err != nil {
		return err
	}
	return w.client.progress.report(w.held, &pb.StreamProgressRequest{
		Progress: report.Progress, Message: optional(report.Message), Checkpoint: checkpoint,
	})
}

// Flush waits until the service has stored all reports so far, which takes up to a second.
func (w *Work) Flush(ctx context.Context) error { return w.client.progress.flush(ctx, w.held) }

// CancelRequested returns a channel that is closed when a cancel with a grace is requested. The
// handler may then clean up and return [ErrCancelAcknowledged], or go on and end its work. At the
// end of the grace, its context ends.
func (w *Work) CancelRequested() <-chan struct{} { return w.cancelRequested }

func (w *Work) requestCancel() { w.requestOnce.Do(func() { close(w.cancelRequested) }) }

func (w *Work) isCancelRequested() bool {
	select {
	case <-w.cancelRequested:
		return true
	default:
		return false
	}
}

// write returns the attempt of the work, and a request id that all tries of a write share.
func (w *Work) write() Write {
	return Write{Attempt: w.operation.Attempt, RequestID: newRequestID()}
}

// storeLastReport stores the last report by a call if the stream has not: the stream and the end
// of the operation may meet different replicas.
func (w *Work) storeLastReport(ctx context.Context) error {
	last, version := w.client.progress.lastReport(w.held)
	if last == nil {
		return nil
	}
	request := &pb.UpdateProgressRequest{
		OperationId: w.operation.ID, Attempt: last.Attempt, RequestId: new(newRequestID()),
		Progress: last.Progress, Message: last.Message, Checkpoint: last.Checkpoint,
	}
	err := untilFinal(ctx, 0, func(ctx context.Context) error {
		operation, err := w.client.updateProgress(ctx, request)
		if err == nil && !operation.CancelRequestTime.IsZero() {
			w.requestCancel()
		}
		return err
	})
	switch {
	case err == nil:
		w.client.progress.settle(w.held, version)
	case isOver(err) || ctx.Err() != nil:
		return err
	}
	return nil // the report may be lost, the end is not
}

// detach reports nothing more, and renews the lease no more.
func (w *Work) detach() { w.client.progress.drop(w.held) }
