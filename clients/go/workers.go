package milepost

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "milepost.dev/go/gen/milepost/v1"
)

// ClaimRequest says which work is claimed.
type ClaimRequest struct {
	// Functions are the exact names of 1 to 100 functions.
	Functions []string
	// MaxOperations bounds the number of operations: 1 by default, at most 100.
	MaxOperations int
	// Lease is the time after which another worker gets an operation of a dead worker: 30 s by
	// default, from 5 s to 1 h.
	Lease time.Duration
	// Worker is the name of the worker, shown to people.
	Worker string
	// Timeout is how long the call waits for work.
	Timeout time.Duration
}

// Claim takes pending operations with a lease, for a worker of your own. A [Worker] does this, and
// renews the leases.
func (c *Client) Claim(ctx context.Context, r ClaimRequest) ([]*Operation, error) {
	answer, err := send[pb.ClaimOperationsResponse](
		ctx, c, pb.WorkerService_ClaimOperations_FullMethodName,
		&pb.ClaimOperationsRequest{
			Functions: r.Functions, MaxOperations: toInt32(r.MaxOperations), Lease: toDuration(r.Lease),
			Worker: optional(r.Worker), Timeout: durationpb.New(r.Timeout),
		}, r.Timeout)
	if err != nil {
		return nil, err
	}
	return fromOperations(answer.GetOperations()), nil
}

// StartRequest says how an operation is started.
type StartRequest struct {
	// Progress is the first progress, between 0.0 and 1.0.
	Progress *float64
	// Worker is the name of the worker, shown to people.
	Worker string
	// ExpectedRevision is the revision that the operation must have; 0 means any.
	ExpectedRevision int64
	// RequestID makes the call repeatable over a restart of the program.
	RequestID string
}

// Start starts a pending operation by its id, without a lease.
func (c *Client) Start(ctx context.Context, id string, r StartRequest) (*Operation, error) {
	answer, err := send[pb.StartOperationResponse](
		ctx, c, pb.WorkerService_StartOperation_FullMethodName,
		&pb.StartOperationRequest{
			OperationId: id, Progress: r.Progress, Worker: optional(r.Worker),
			RequestId:        optional(r.RequestID),
			ExpectedRevision: optional(r.ExpectedRevision),
		}, 0)
	if err != nil {
		return nil, err
	}
	return replayedOperation(answer.GetOperation(), answer.GetReplayed()), nil
}

// Report is what a worker reports about its work. An empty report only renews the lease.
type Report struct {
	// Progress lies between 0.0 and 1.0, and never goes back within one attempt.
	Progress *float64
	// Message describes the present step, at most 1,000 characters. Empty keeps the last one.
	Message string
	// Checkpoint is the state of the work for the next attempt: JSON or a protobuf message of at
	// most 65,536 bytes. Nil keeps the last one.
	Checkpoint any
}

// Write identifies a write of a worker.
type Write struct {
	// Attempt is the attempt of the claim, which must be the present one; 0 means any.
	Attempt int
	// ExpectedRevision is the revision that the operation must have; 0 means any.
	ExpectedRevision int64
	// RequestID makes the call repeatable over a restart of the program.
	RequestID string
}

// UpdateProgress stores a report, and returns the operation without its large fields.
func (c *Client) UpdateProgress(
	ctx context.Context, id string, report Report, w Write,
) (*Operation, error) {
	checkpoint, err := toAny(report.Checkpoint)
	if err != nil {
		return nil, err
	}
	return c.updateProgress(ctx, &pb.UpdateProgressRequest{
		OperationId: id, Attempt: optional(toInt32(w.Attempt)), RequestId: optional(w.RequestID),
		ExpectedRevision: optional(w.ExpectedRevision), Progress: report.Progress,
		Message: optional(report.Message), Checkpoint: checkpoint,
	})
}

func (c *Client) updateProgress(
	ctx context.Context, request *pb.UpdateProgressRequest,
) (*Operation, error) {
	answer, err := send[pb.UpdateProgressResponse](
		ctx, c, pb.WorkerService_UpdateProgress_FullMethodName, request, 0)
	if err != nil {
		return nil, err
	}
	return replayedOperation(answer.GetOperation(), answer.GetReplayed()), nil
}

// Complete completes an operation. The result is nil, JSON or a protobuf message of at most 1 MiB.
func (c *Client) Complete(
	ctx context.Context, id string, result any, w Write,
) (*Operation, error) {
	packed, err := toAny(result)
	if err != nil {
		return nil, err
	}
	return c.complete(ctx, id, packed, w)
}

func (c *Client) complete(
	ctx context.Context, id string, result *anypb.Any, w Write,
) (*Operation, error) {
	answer, err := send[pb.CompleteOperationResponse](
		ctx, c, pb.WorkerService_CompleteOperation_FullMethodName,
		&pb.CompleteOperationRequest{
			OperationId: id, Attempt: optional(toInt32(w.Attempt)), RequestId: optional(w.RequestID),
			ExpectedRevision: optional(w.ExpectedRevision), Result: result,
		}, 0)
	if err != nil {
		return nil, err
	}
	return replayedOperation(answer.GetOperation(), answer.GetReplayed()), nil
}

// Failure is the end of an attempt without success.
type Failure struct {
	// Errors are the reasons, at least one.
	Errors []OperationError
	// Retryable says that another attempt may succeed.
	Retryable bool
	// RetryDelay is the pause before it, instead of that of the retry policy; only if Retryable.
	RetryDelay *time.Duration
}

// Fail ends an attempt of an operation: the operation fails, or waits for the next attempt.
func (c *Client) Fail(
	ctx context.Context, id string, failure Failure, w Write,
) (*Operation, error) {
	request, err := failure.toMessage()
	if err != nil {
		return nil, err
	}
	return c.fail(ctx, id, request, w)
}

// toMessage returns the request, without the operation that fails.
func (f Failure) toMessage() (*pb.FailOperationRequest, error) {
	causes, err := toErrors(f.Errors)
	if err != nil {
		return nil, err
	}
	request := &pb.FailOperationRequest{Errors: causes, Retryable: f.Retryable}
	if f.RetryDelay != nil {
		request.RetryDelay = durationpb.New(*f.RetryDelay)
	}
	return request, nil
}

func (c *Client) fail(
	ctx context.Context, id string, failure *pb.FailOperationRequest, w Write,
) (*Operation, error) {
	request := proto.CloneOf(failure)
	request.OperationId, request.Attempt = id, optional(toInt32(w.Attempt))
	request.RequestId, request.ExpectedRevision = optional(w.RequestID), optional(w.ExpectedRevision)
	answer, err := send[pb.FailOperationResponse](
		ctx, c, pb.WorkerService_FailOperation_FullMethodName, request, 0)
	if err != nil {
		return nil, err
	}
	return replayedOperation(answer.GetOperation(), answer.GetReplayed()), nil
}

// ReleaseRequest says how an operation is given back.
type ReleaseRequest struct {
	Write
	// Delay is the time until the operation can be claimed again, at most 1 h.
	Delay time.Duration
	// Reason is stored with the event, at most 1,000 characters.
	Reason string
}

// Release gives an operation back: another worker gets it, and the attempt has not failed.
func (c *Client) Release(ctx context.Context, id string, r ReleaseRequest) (*Operation, error) {
	answer, err := send[pb.ReleaseOperationResponse](
		ctx, c, pb.WorkerService_ReleaseOperation_FullMethodName,
		&pb.ReleaseOperationRequest{
			OperationId: id, Attempt: optional(toInt32(r.Attempt)), RequestId: optional(r.RequestID),
			ExpectedRevision: optional(r.ExpectedRevision), Delay: toDuration(r.Delay),
			Reason: optional(r.Reason),
		}, 0)
	if err != nil {
		return nil, err
	}
	return replayedOperation(answer.GetOperation(), answer.GetReplayed()), nil
}

// AcknowledgeCancellation ends an operation whose cancel was requested: its worker has stopped.
func (c *Client) AcknowledgeCancellation(
	ctx context.Context, id string, w Write,
) (*Operation, error) {
	answer, err := send[pb.AcknowledgeCancellationResponse](
		ctx, c, pb.WorkerService_AcknowledgeCancellation_FullMethodName,
		&pb.AcknowledgeCancellationRequest{
			OperationId: id, Attempt: optional(toInt32(w.Attempt)), RequestId: optional(w.RequestID),
			ExpectedRevision: optional(w.ExpectedRevision),
		}, 0)
	if err != nil {
		return nil, err
	}
	return replayedOperation(answer.GetOperation(), answer.GetReplayed()), nil
}
