package milepost

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrClosed is returned by calls of a client that is closed.
var ErrClosed = errors.New("milepost: the client is closed")

// ErrWorkOver is returned by reports about work that has ended.
var ErrWorkOver = errors.New("milepost: the work is over: nothing more can be reported about it")

// ErrWorkerStopped is the cause of the context of a handler that did not end within the grace of a
// worker that stops. The operation is released: another worker gets it.
var ErrWorkerStopped = errors.New("milepost: the worker stops")

// errGoexit is the cause of a failure if a handler, or a method of its result or error, ended
// its goroutine.
var errGoexit = errors.New("the handler called runtime.Goexit")

// Violation is one invalid field of a request.
type Violation struct {
	// Field is the path of the field.
	Field string
	// Description is the rule that the field violates.
	Description string
}

// APIError is a refused or broken call. It is the root of the tree of errors:
//
//	APIError
//	├── InvalidRequestError                   a field is malformed: see Violations
//	│   └── ProgressDecreaseError             progress would decrease
//	├── UnauthenticatedError                  the credential is missing or invalid
//	├── PermissionDeniedError                 the credential lacks the role that the call requires
//	├── NotFoundError                         no such resource is visible to you
//	│   ├── APIKeyNotFoundError               unknown API key
//	│   ├── DeliveryNotFoundError             unknown, or of another owner's operation
//	│   ├── SigningSecretNotFoundError        you have no signing secret yet
//	│   └── OperationNotFoundError            unknown, or not visible to you
//	│       ├── OperationExpiredError         your own operation, expired
//	│       └── OperationDeletedError         your own operation, deleted
//	├── IllegalTransitionError                not allowed: see Transition, Status, Allowed
//	│   └── CancelledError                    not allowed because the operation is cancelled
//	├── CancellationNotRequestedError         the acknowledged cancel was not requested
//	├── ConflictError                         based on an old copy: read again and retry
//	│   ├── RevisionMismatchError             the operation is not at ExpectedRevision
//	│   ├── StaleAttemptError                 the attempt is over: stop working on the operation
//	│   └── LostRaceError                     concurrent changes preceded every try
//	├── RevisionAheadError                    the operation is not at that revision yet, or no longer
//	├── RequestIDReusedError                  the same request id with other content
//	├── UniqueKeyTakenError                   an active operation has the key: see OperationID
//	├── WebhooksNotConfiguredError            this service sends no webhooks
//	├── LimitReachedError                     a limit: try again after RetryAfter
//	│   ├── RateLimitedError                  too many calls
//	│   ├── QuotaExceededError                too many active operations
//	│   └── StreamFullError                   too many operations on one progress stream
//	├── UnavailableError                      temporary; the client retried until the deadline
//	│   ├── StoreUnavailableError             the database does not answer
//	│   ├── IdentityProviderUnavailableError  the issuer of your token does not answer
//	│   ├── OverloadedError                   the replica holds as many calls as it accepts
//	│   └── DrainingError                     the replica is shutting down
//	├── DeadlineExceededError                 no response in time: a change may have happened
//	├── NotAvailableError                     documented, but not in this release of the service
//	├── UndecodableAnswerError                accepted, but this client cannot read the response
//	└── InternalError                         a defect of the service: Metadata has the trace id
//	    └── IDsExhaustedError                 the service found no free id
//
// [errors.As] finds each type above the one that was raised, and the APIError itself:
//
//	var gone *milepost.NotFoundError
//	if errors.As(err, &gone) { … }
//
// The type follows from the reason that the service sent, never from the text. An unknown reason is
// treated as its gRPC code.
type APIError struct {
	// Code is the gRPC code of the response.
	Code codes.Code
	// Reason is the machine-readable reason, such as ILLEGAL_TRANSITION. Empty if the error does
	// not come from the service itself, but from the connection, a proxy, or gRPC.
	Reason string
	// Message describes the error to people.
	Message string
	// Metadata holds the facts behind the message, by name.
	Metadata map[string]string
	// Violations are the invalid fields.
	Violations []Violation
	// RetryAfter is the pause before the next try that the service asks for.
	RetryAfter time.Duration
}

// Error returns the reason or the code, and the message.
func (e *APIError) Error() string {
	name := e.Reason
	if name == "" {
		name = e.Code.String()
	}
	return fmt.Sprintf("milepost: %s: %s", name, e.Message)
}

// GRPCStatus returns the code and the message, for [status.FromError].
func (e *APIError) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// Transition returns the requested transition, such as "complete".
func (e *IllegalTransitionError) Transition() string { return e.Metadata["transition"] }

// Status returns the current status.
func (e *IllegalTransitionError) Status() Status { return statusNamed(e.Metadata["status"]) }

// Allowed returns the statuses that allow the transition.
func (e *IllegalTransitionError) Allowed() []Status {
	var statuses []Status
	for name := range strings.SplitSeq(e.Metadata["allowed"], ",") {
		if name != "" {
			statuses = append(statuses, statusNamed(name))
		}
	}
	return statuses
}

// OperationID returns the id of the active operation that has the key.
func (e *UniqueKeyTakenError) OperationID() string { return e.Metadata["operation_id"] }

// Is makes the error match [context.DeadlineExceeded].
func (e *DeadlineExceededError) Is(target error) bool { return target == context.DeadlineExceeded }

// ValueError is a value that cannot be sent: it is not JSON, or not exactly.
type ValueError struct {
	problem string
	err     error
}

// Error describes the problem.
func (e *ValueError) Error() string { return "milepost: " + e.problem }

// Unwrap returns the cause, if there is one.
func (e *ValueError) Unwrap() error { return e.err }

// OperationFailedError says that an operation has no result because it failed.
type OperationFailedError struct {
	// Operation is the failed operation.
	Operation *Operation
}

// Error lists the errors of the operation.
func (e *OperationFailedError) Error() string {
	causes := make([]string, len(e.Operation.Errors))
	for i, cause := range e.Operation.Errors {
		causes[i] = cause.Code + ": " + cause.Message
	}
	return fmt.Sprintf("milepost: operation %s failed: %s", e.Operation.ID, strings.Join(causes, "; "))
}

// OperationCancelledError says that an operation has no result because it was cancelled.
type OperationCancelledError struct {
	// Operation is the cancelled operation.
	Operation *Operation
}

// Error names the operation.
func (e *OperationCancelledError) Error() string {
	return fmt.Sprintf("milepost: operation %s is CANCELLED", e.Operation.ID)
}

// StillRunningError says that an operation had not ended when the timeout passed. It goes on.
type StillRunningError struct {
	// Operation is the operation as it stood at that time.
	Operation *Operation
}

// Error names the operation and its status.
func (e *StillRunningError) Error() string {
	return fmt.Sprintf("milepost: operation %s is %s", e.Operation.ID, e.Operation.Status)
}

// Is makes the error match [context.DeadlineExceeded].
func (e *StillRunningError) Is(target error) bool { return target == context.DeadlineExceeded }
