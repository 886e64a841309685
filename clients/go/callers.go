package milepost

import (
	"context"
	"iter"
	"time"

	pb "milepost.dev/go/gen/milepost/v1"
)

// UniqueKeyPolicy decides about a create whose unique key an active operation has.
type UniqueKeyPolicy int

const (
	// JoinActive returns the active operation, with Joined set. It is the default.
	JoinActive UniqueKeyPolicy = iota
	// RefuseActive refuses the create with a [UniqueKeyTakenError].
	RefuseActive
)

// CreateRequest describes a new operation. A zero field, other than Function, has its default.
type CreateRequest struct {
	// Function is the name of the function that does the work, such as "video.transcode".
	Function string
	// Version is the version of the function.
	Version string
	// Metadata is data for the worker: JSON of at most 65,536 bytes and 20 levels.
	Metadata map[string]any
	// RequestID makes the call repeatable: another create with it returns the same operation.
	RequestID string
	// OriginalRequestID is the id of the request behind this operation.
	OriginalRequestID string
	// CallbackURL is the https URL that receives webhooks.
	CallbackURL string
	// CallbackEvents are the types of the events that are sent; by default those of the end.
	CallbackEvents []string
	// TTL is the retention period: 24 h by default, from 60 s to 7 days.
	TTL time.Duration
	// RetryAfter is the suggested pause between polls: 5 s by default.
	RetryAfter time.Duration
	// MaxAttempts bounds the failed attempts: 3 by default.
	MaxAttempts int
	// RetryPolicy sets the pauses between the attempts.
	RetryPolicy *RetryPolicy
	// QueueTimeout bounds the time without a worker.
	QueueTimeout time.Duration
	// RunTimeout bounds one attempt.
	RunTimeout time.Duration
	// ScheduleTime is the time before which the operation cannot be claimed.
	ScheduleTime time.Time
	// Priority lies between 0 and 9; 5 by default.
	Priority *int
	// UniqueKey is a key that at most one active operation of the owner has.
	UniqueKey string
	// UniqueKeyPolicy decides what happens if another one has it.
	UniqueKeyPolicy UniqueKeyPolicy
}

// Create creates an operation.
func (c *Client) Create(ctx context.Context, r CreateRequest) (*Operation, error) {
	metadata, err := toStruct(r.Metadata)
	if err != nil {
		return nil, err
	}
	request := &pb.CreateOperationRequest{
		RequestId: optional(r.RequestID), Function: r.Function, Version: optional(r.Version),
		Metadata: metadata, OriginalRequestId: optional(r.OriginalRequestID),
		CallbackUrl: optional(r.CallbackURL), Ttl: toDuration(r.TTL),
		RetryAfter: toDuration(r.RetryAfter), MaxAttempts: optional(toInt32(r.MaxAttempts)),
		CallbackEvents: r.CallbackEvents, ScheduleTime: toTime(r.ScheduleTime),
		UniqueKey: optional(r.UniqueKey), RetryPolicy: toRetryPolicy(r.RetryPolicy),
		QueueTimeout: toDuration(r.QueueTimeout), RunTimeout: toDuration(r.RunTimeout),
	}
	if r.Priority != nil {
		request.Priority = new(toInt32(*r.Priority))
	}
	if r.UniqueKeyPolicy == RefuseActive {
		request.UniqueKeyPolicy = pb.UniqueKeyPolicy_UNIQUE_KEY_POLICY_REFUSE
	}
	answer, err := send[pb.CreateOperationResponse](
		ctx, c, pb.OperationService_CreateOperation_FullMethodName, request, 0)
	if err != nil {
		return nil, err
	}
	operation := replayedOperation(answer.GetOperation(), answer.GetReplayed())
	operation.Joined = answer.GetJoined()
	return operation, nil
}

// Get returns the present state of an operation.
func (c *Client) Get(ctx context.Context, id string) (*Operation, error) {
	answer, err := send[pb.GetOperationResponse](
		ctx, c, pb.OperationService_GetOperation_FullMethodName,
		&pb.GetOperationRequest{OperationId: id}, 0)
	if err != nil {
		return nil, err
	}
	return fromOperation(answer.GetOperation()), nil
}

// ListRequest selects operations that match every filter. The zero value selects all.
type ListRequest struct {
	// Statuses are those of the operations; empty means all.
	Statuses []Status
	// Function is the exact name of the function.
	Function string
	// CreatedFrom is the earliest time of the creation, inclusive.
	CreatedFrom time.Time
	// CreatedBefore is the latest time of the creation, exclusive.
	CreatedBefore time.Time
	// Owner selects the operations of another owner, for admins.
	Owner string
	// Full asks for Metadata, Result and Errors too.
	Full bool
	// PageSize is the number of operations per call: 50 by default, at most 100.
	PageSize int
}

// List iterates over the operations that match, newest first, over all pages. It ends after the
// first error. A rate limit refuses the first page, and delays each of the others for up to 5
// minutes.
func (c *Client) List(ctx context.Context, r ListRequest) iter.Seq2[*Operation, error] {
	request := &pb.ListOperationsRequest{
		PageSize: toInt32(r.PageSize), Statuses: toStatuses(r.Statuses), Function: optional(r.Function),
		CreateTimeFrom: toTime(r.CreatedFrom), CreateTimeTo: toTime(r.CreatedBefore),
		Owner: optional(r.Owner), View: pb.OperationView_OPERATION_VIEW_BASIC,
	}
	if r.Full {
		request.View = pb.OperationView_OPERATION_VIEW_FULL
	}
	return pages(ctx, func(token string) ([]*Operation, string, error) {
		request.PageToken = token
		page, err := send[pb.ListOperationsResponse](
			ctx, c, pb.OperationService_ListOperations_FullMethodName, request, 0)
		return fromOperations(page.GetOperations()), page.GetNextPageToken(), err
	})
}

// EventsRequest says how events are read.
type EventsRequest struct {
	// PageSize is the number of events per call: 50 by default, at most 100.
	PageSize int
}

// Events iterates over the transitions of an operation that changed its status or requested to
// cancel it, oldest first, over all pages. It ends after the first error. A rate limit refuses the
// first page, and delays each of the others for up to 5 minutes.
func (c *Client) Events(
	ctx context.Context, id string, r EventsRequest,
) iter.Seq2[*Event, error] {
	return pages(ctx, func(token string) ([]*Event, string, error) {
		page, err := send[pb.ListEventsResponse](
			ctx, c, pb.OperationService_ListEvents_FullMethodName,
			&pb.ListEventsRequest{OperationId: id, PageSize: toInt32(r.PageSize), PageToken: token}, 0)
		events := make([]*Event, len(page.GetEvents()))
		for i, event := range page.GetEvents() {
			events[i] = fromEvent(event)
		}
		return events, page.GetNextPageToken(), err
	})
}

// CancelRequest says how an operation is cancelled.
type CancelRequest struct {
	// Reason is stored with the operation, at most 1,000 characters.
	Reason string
	// Grace is the time that the worker has to end the operation, at most 1 h. Without it, the
	// operation is cancelled at once.
	Grace time.Duration
	// ExpectedRevision is the revision that the operation must have; 0 means any.
	ExpectedRevision int64
	// RequestID makes the call repeatable over a restart of the program.
	RequestID string
}

// Cancel cancels an operation.
func (c *Client) Cancel(ctx context.Context, id string, r CancelRequest) (*Operation, error) {
	answer, err := send[pb.CancelOperationResponse](
		ctx, c, pb.OperationService_CancelOperation_FullMethodName,
		&pb.CancelOperationRequest{
			OperationId: id, Reason: optional(r.Reason), Grace: toDuration(r.Grace),
			ExpectedRevision: optional(r.ExpectedRevision), RequestId: optional(r.RequestID),
		}, 0)
	if err != nil {
		return nil, err
	}
	return replayedOperation(answer.GetOperation(), answer.GetReplayed()), nil
}

// DeleteRequest says which operation is deleted.
type DeleteRequest struct {
	// ExpectedRevision is the revision that the operation must have; 0 means any.
	ExpectedRevision int64
	// RequestID makes the call repeatable over a restart of the program.
	RequestID string
}

// Delete deletes an operation that has ended, and its result.
func (c *Client) Delete(ctx context.Context, id string, r DeleteRequest) error {
	_, err := send[pb.DeleteOperationResponse](
		ctx, c, pb.OperationService_DeleteOperation_FullMethodName,
		&pb.DeleteOperationRequest{
			OperationId: id, ExpectedRevision: optional(r.ExpectedRevision),
			RequestId: optional(r.RequestID),
		}, 0)
	return err
}
