package milepost

import (
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "milepost.dev/go/gen/milepost/v1"
)

// Status is the status of an operation.
type Status string

// The statuses of an operation. Completed, Failed and Cancelled are terminal.
const (
	// Unknown is a status of a newer service, which this client treats as not terminal.
	Unknown Status = "UNKNOWN"
	// Pending operations wait for a worker.
	Pending Status = "PENDING"
	// Processing operations are in the hands of a worker.
	Processing Status = "PROCESSING"
	// Completed operations have ended with success, and may have a result.
	Completed Status = "COMPLETED"
	// Failed operations have ended with a failure, and have at least one error.
	Failed Status = "FAILED"
	// Cancelled operations were ended by their owner or an admin.
	Cancelled Status = "CANCELLED"
)

// IsTerminal returns true if an operation of this status has ended.
func (s Status) IsTerminal() bool { return s == Completed || s == Failed || s == Cancelled }

// NextStep is the event that an active operation requires next.
type NextStep string

// The next steps of an operation.
const (
	// NoStep is that of a terminal operation, or a step of a newer service.
	NoStep NextStep = ""
	// ClaimStep is a claim by a worker.
	ClaimStep NextStep = "CLAIM"
	// RenewalStep is the renewal of the lease.
	RenewalStep NextStep = "RENEWAL"
	// EndStep is the end of the work.
	EndStep NextStep = "END"
)

// OperationError is one reason of a failure, as the worker or the service reported it.
type OperationError struct {
	// Code is the kind of error for programs, such as CODEC_UNSUPPORTED.
	Code string
	// Message is the reason for people.
	Message string
	// Source is the part of the input or of the system that caused it.
	Source string
	// Details are further data of the worker.
	Details map[string]any
}

// RetryPolicy sets the pauses between the attempts of an operation.
type RetryPolicy struct {
	// InitialBackoff is the pause after the first failed attempt: 1 s by default, at most 1 h.
	InitialBackoff *time.Duration
	// BackoffMultiplier is the factor between two pauses: 2 by default, from 1 to 10. 0 means the
	// default.
	BackoffMultiplier float64
	// MaxBackoff is the longest pause: 5 min by default, at most 24 h.
	MaxBackoff *time.Duration
}

// Operation is one piece of work, in the state that was read. A time is zero, and a text empty, if
// the operation has none.
//
// List leaves out Metadata, Result, Errors and the checkpoint unless asked for them, and so do
// answers to progress.
type Operation struct {
	ID       string
	Function string
	Version  string
	Owner    string
	// Metadata is the data of the caller.
	Metadata          map[string]any
	OriginalRequestID string
	// CallbackURL is the URL that receives webhooks, without its query. Only its owner sees it.
	CallbackURL string

	Status Status
	// Progress lies between 0.0 and 1.0; nil until first reported.
	Progress        *float64
	ProgressMessage string
	// Result is a plain JSON value, or an *anypb.Any of any other message. See DecodeResult.
	Result any
	Errors []OperationError

	// Revision rises by one with every change.
	Revision int64
	// Attempt is the number of starts.
	Attempt        int
	MaxAttempts    int
	FailedAttempts int
	Worker         string
	Priority       int
	UniqueKey      string
	RetryPolicy    RetryPolicy
	// CancelReason is the reason of the cancel, or of the request to cancel.
	CancelReason string
	// Traceparent is the trace that created the operation, if it is sampled, as the header of
	// W3C Trace Context.
	Traceparent string

	TTL          time.Duration
	RetryAfter   time.Duration
	QueueTimeout time.Duration
	RunTimeout   time.Duration

	CreateTime   time.Time
	ScheduleTime time.Time
	// NextAttemptTime is the time before which a pending operation cannot be claimed.
	NextAttemptTime time.Time
	StartTime       time.Time
	ProgressTime    time.Time
	// CompleteTime is the time at which the operation was completed or failed.
	CompleteTime time.Time
	CancelTime   time.Time
	// CancelRequestTime and CancelDeliveredTime are those of a cancel with a grace, which ends at
	// CancelExpireTime.
	CancelRequestTime   time.Time
	CancelDeliveredTime time.Time
	CancelExpireTime    time.Time
	LeaseExpireTime     time.Time
	QueueExpireTime     time.Time
	RunExpireTime       time.Time
	ExpireTime          time.Time

	NextStep         NextStep
	NextStepDeadline time.Time

	// Replayed is true if the call changed nothing, because an earlier one with the same request
	// id did.
	Replayed bool
	// Joined is true if the create met an active operation with the same unique key.
	Joined bool

	message    *pb.Operation
	checkpoint any
}

// Message returns the message that the operation was read from, with fields that this client may
// not know.
func (o *Operation) Message() *pb.Operation { return o.message }

// HasResult returns true if the worker sent a result, even if it is null.
func (o *Operation) HasResult() bool { return o.message.GetResult() != nil }

// DecodeResult stores the result in the value that into points to, as [encoding/json] does, or
// unpacks it if into is a protobuf message.
func (o *Operation) DecodeResult(into any) error { return decode(o.Result, into) }

// HasCheckpoint returns true if a worker saved a checkpoint for the next attempt.
func (o *Operation) HasCheckpoint() bool { return o.message.GetCheckpoint() != nil }

// DecodeCheckpoint stores the checkpoint in the value that into points to; see DecodeResult.
func (o *Operation) DecodeCheckpoint(into any) error { return decode(o.checkpoint, into) }

// Event is the record of one transition of an operation.
type Event struct {
	// Revision is that of the operation after the transition.
	Revision int64
	// Type is the type of the event, such as operation.retrying.
	Type string
	// Transition is the name of the transition, such as retry.
	Transition string
	Time       time.Time
	// Actor is the subject that made the transition; milepost for the service itself.
	Actor   string
	Attempt int
	Worker  string
	Reason  string
	// Errors are those of the attempt, if the transition ended it with errors.
	Errors []OperationError
}

const (
	statusPrefix = "OPERATION_STATUS_"
	stepPrefix   = "NEXT_STEP_"
)

func fromOperation(m *pb.Operation) *Operation {
	return &Operation{
		ID: m.GetId(), Function: m.GetFunction(), Version: m.GetVersion(), Owner: m.GetOwner(),
		Metadata: m.GetMetadata().AsMap(), OriginalRequestID: m.GetOriginalRequestId(),
		CallbackURL: m.GetCallbackUrl(), Status: fromStatus(m.GetStatus()), Progress: m.Progress,
		ProgressMessage: m.GetProgressMessage(), Result: fromAny(m.GetResult()),
		Errors: fromErrors(m.GetErrors()), Revision: m.GetRevision(), Attempt: int(m.GetAttempt()),
		MaxAttempts: int(m.GetMaxAttempts()), FailedAttempts: int(m.GetFailedAttempts()),
		Worker: m.GetWorker(), Priority: int(m.GetPriority()), UniqueKey: m.GetUniqueKey(),
		RetryPolicy: fromRetryPolicy(m.GetRetryPolicy()), CancelReason: m.GetCancelReason(),
		Traceparent: m.GetTraceparent(),
		TTL:         m.GetTtl().AsDuration(), RetryAfter: m.GetRetryAfter().AsDuration(),
		QueueTimeout: m.GetQueueTimeout().AsDuration(), RunTimeout: m.GetRunTimeout().AsDuration(),
		CreateTime: fromTime(m.GetCreateTime()), ScheduleTime: fromTime(m.GetScheduleTime()),
		NextAttemptTime: fromTime(m.GetNextAttemptTime()), StartTime: fromTime(m.GetStartTime()),
		ProgressTime: fromTime(m.GetProgressTime()), CompleteTime: fromTime(m.GetCompleteTime()),
		CancelTime: fromTime(m.GetCancelTime()), CancelRequestTime: fromTime(m.GetCancelRequestTime()),
		CancelDeliveredTime: fromTime(m.GetCancelDeliveredTime()),
		CancelExpireTime:    fromTime(m.GetCancelExpireTime()),
		LeaseExpireTime:     fromTime(m.GetLeaseExpireTime()),
		QueueExpireTime:     fromTime(m.GetQueueExpireTime()), RunExpireTime: fromTime(m.GetRunExpireTime()),
		ExpireTime: fromTime(m.GetExpireTime()), NextStep: fromStep(m.GetNextStep()),
		NextStepDeadline: fromTime(m.GetNextStepDeadline()),
		message:          m, checkpoint: fromAny(m.GetCheckpoint()),
	}
}

func replayedOperation(m *pb.Operation, replayed bool) *Operation {
	operation := fromOperation(m)
	operation.Replayed = replayed
	return operation
}

func fromOperations(messages []*pb.Operation) []*Operation {
	operations := make([]*Operation, len(messages))
	for i, m := range messages {
		operations[i] = fromOperation(m)
	}
	return operations
}

func fromEvent(m *pb.OperationEvent) *Event {
	return &Event{
		Revision: m.GetRevision(), Type: m.GetType(), Transition: m.GetTransition(),
		Time: fromTime(m.GetTime()), Actor: m.GetActor(), Attempt: int(m.GetAttempt()),
		Worker: m.GetWorker(), Reason: m.GetReason(), Errors: fromErrors(m.GetErrors()),
	}
}

// fromStatus returns the status, or Unknown for one of a newer service.
func fromStatus(number pb.OperationStatus) Status {
	return statusNamed(strings.TrimPrefix(pb.OperationStatus_name[int32(number)], statusPrefix))
}

func statusNamed(name string) Status {
	switch status := Status(name); status {
	case Pending, Processing, Completed, Failed, Cancelled:
		return status
	default:
		return Unknown
	}
}

func toStatuses(statuses []Status) []pb.OperationStatus {
	numbers := make([]pb.OperationStatus, len(statuses))
	for i, status := range statuses {
		numbers[i] = pb.OperationStatus(pb.OperationStatus_value[statusPrefix+string(status)])
	}
	return numbers
}

func fromStep(number pb.NextStep) NextStep {
	if number == pb.NextStep_NEXT_STEP_UNSPECIFIED {
		return NoStep
	}
	return NextStep(strings.TrimPrefix(pb.NextStep_name[int32(number)], stepPrefix))
}

func fromErrors(messages []*pb.OperationError) []OperationError {
	var found []OperationError
	for _, m := range messages {
		found = append(found, OperationError{
			Code: m.GetCode(), Message: m.GetMessage(), Source: m.GetSource(),
			Details: m.GetDetails().AsMap(),
		})
	}
	return found
}

func toErrors(causes []OperationError) ([]*pb.OperationError, error) {
	messages := make([]*pb.OperationError, len(causes))
	for i, cause := range causes {
		details, err := toStruct(cause.Details)
		if err != nil {
			return nil, err
		}
		messages[i] = &pb.OperationError{
			Code: cause.Code, Message: cause.Message, Source: optional(cause.Source), Details: details,
		}
	}
	return messages, nil
}

func fromRetryPolicy(m *pb.RetryPolicy) RetryPolicy {
	policy := RetryPolicy{BackoffMultiplier: m.GetBackoffMultiplier()}
	if m.GetInitialBackoff() != nil {
		policy.InitialBackoff = new(m.GetInitialBackoff().AsDuration())
	}
	if m.GetMaxBackoff() != nil {
		policy.MaxBackoff = new(m.GetMaxBackoff().AsDuration())
	}
	return policy
}

func toRetryPolicy(policy *RetryPolicy) *pb.RetryPolicy {
	if policy == nil {
		return nil
	}
	message := &pb.RetryPolicy{BackoffMultiplier: optional(policy.BackoffMultiplier)}
	if policy.InitialBackoff != nil {
		message.InitialBackoff = durationpb.New(*policy.InitialBackoff)
	}
	if policy.MaxBackoff != nil {
		message.MaxBackoff = durationpb.New(*policy.MaxBackoff)
	}
	return message
}

func fromTime(m *timestamppb.Timestamp) time.Time {
	if m == nil {
		return time.Time{}
	}
	return m.AsTime()
}

func toTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// toDuration returns the duration as a message, or nil for zero.
func toDuration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// toInt32 returns the number, or the nearest one that fits, which the service refuses.
func toInt32(number int) int32 {
	return int32(min(max(number, math.MinInt32), math.MaxInt32))
}

// optional returns a pointer to the value, or nil for the zero value.
func optional[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}
