package milepost

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errorDomain is the domain of the reasons of the service.
const errorDomain = "milepost"

// rebuild returns the typed error of a failed call.
func rebuild(failure error) error {
	answer, _ := status.FromError(failure)
	facts := &APIError{Code: answer.Code(), Message: answer.Message()}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == errorDomain {
				facts.Reason, facts.Metadata = detail.GetReason(), detail.GetMetadata()
			}
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				facts.Violations = append(facts.Violations,
					Violation{Field: violation.GetField(), Description: violation.GetDescription()})
			}
		case *errdetails.RetryInfo:
			facts.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	return typed(facts)
}

// typed returns the error of the reason, or of the code if the reason is unknown.
func typed(facts *APIError) error {
	if facts.Reason == "ILLEGAL_TRANSITION" && facts.Metadata["status"] == string(Cancelled) {
		return &CancelledError{&IllegalTransitionError{facts}}
	}
	if wrap, ok := byReason[facts.Reason]; ok {
		return wrap(facts)
	}
	if wrap, ok := byCode[facts.Code]; ok {
		return wrap(facts)
	}
	return facts
}

func notFound(e *APIError) *NotFoundError { return &NotFoundError{e} }

func noOperation(e *APIError) *OperationNotFoundError { return &OperationNotFoundError{notFound(e)} }

func conflict(e *APIError) *ConflictError { return &ConflictError{e} }

func limitReached(e *APIError) *LimitReachedError { return &LimitReachedError{e} }

func unavailable(e *APIError) *UnavailableError { return &UnavailableError{e} }

func invalidRequest(e *APIError) *InvalidRequestError { return &InvalidRequestError{e} }

func internal(e *APIError) *InternalError { return &InternalError{e} }

// byReason holds the type of every reason that the service gives.
var byReason = map[string]func(*APIError) error{
	"INVALID_REQUEST":   func(e *APIError) error { return invalidRequest(e) },
	"PROGRESS_DECREASE": func(e *APIError) error { return &ProgressDecreaseError{invalidRequest(e)} },
	"UNAUTHENTICATED":   func(e *APIError) error { return &UnauthenticatedError{e} },
	"PERMISSION_DENIED": func(e *APIError) error { return &PermissionDeniedError{e} },
	"API_KEY_NOT_FOUND": func(e *APIError) error { return &APIKeyNotFoundError{notFound(e)} },
	"DELIVERY_NOT_FOUND": func(e *APIError) error {
		return &DeliveryNotFoundError{notFound(e)}
	},
	"SIGNING_SECRET_NOT_FOUND": func(e *APIError) error {
		return &SigningSecretNotFoundError{notFound(e)}
	},
	"OPERATION_NOT_FOUND": func(e *APIError) error { return noOperation(e) },
	"OPERATION_EXPIRED":   func(e *APIError) error { return &OperationExpiredError{noOperation(e)} },
	"OPERATION_DELETED":   func(e *APIError) error { return &OperationDeletedError{noOperation(e)} },
	"ILLEGAL_TRANSITION":  func(e *APIError) error { return &IllegalTransitionError{e} },
	"CANCELLATION_NOT_REQUESTED": func(e *APIError) error {
		return &CancellationNotRequestedError{e}
	},
	"REVISION_MISMATCH": func(e *APIError) error { return &RevisionMismatchError{conflict(e)} },
	"STALE_ATTEMPT":     func(e *APIError) error { return &StaleAttemptError{conflict(e)} },
	"LOST_RACE":         func(e *APIError) error { return &LostRaceError{conflict(e)} },
	"REVISION_AHEAD":    func(e *APIError) error { return &RevisionAheadError{e} },
	"REQUEST_ID_REUSED": func(e *APIError) error { return &RequestIDReusedError{e} },
	"UNIQUE_KEY_TAKEN":  func(e *APIError) error { return &UniqueKeyTakenError{e} },
	"WEBHOOKS_NOT_CONFIGURED": func(e *APIError) error {
		return &WebhooksNotConfiguredError{e}
	},
	"RATE_LIMITED":      func(e *APIError) error { return &RateLimitedError{limitReached(e)} },
	"QUOTA_EXCEEDED":    func(e *APIError) error { return &QuotaExceededError{limitReached(e)} },
	"STREAM_FULL":       func(e *APIError) error { return &StreamFullError{limitReached(e)} },
	"STORE_UNAVAILABLE": func(e *APIError) error { return &StoreUnavailableError{unavailable(e)} },
	"IDENTITY_PROVIDER_UNAVAILABLE": func(e *APIError) error {
		return &IdentityProviderUnavailableError{unavailable(e)}
	},
	"OVERLOADED":    func(e *APIError) error { return &OverloadedError{unavailable(e)} },
	"DRAINING":      func(e *APIError) error { return &DrainingError{unavailable(e)} },
	"INTERNAL":      func(e *APIError) error { return internal(e) },
	"IDS_EXHAUSTED": func(e *APIError) error { return &IDsExhaustedError{internal(e)} },
}

// byCode holds the type of a reason of a newer service, and of an answer of gRPC itself.
var byCode = map[codes.Code]func(*APIError) error{
	codes.InvalidArgument:   func(e *APIError) error { return invalidRequest(e) },
	codes.Unauthenticated:   func(e *APIError) error { return &UnauthenticatedError{e} },
	codes.PermissionDenied:  func(e *APIError) error { return &PermissionDeniedError{e} },
	codes.NotFound:          func(e *APIError) error { return notFound(e) },
	codes.Aborted:           func(e *APIError) error { return conflict(e) },
	codes.ResourceExhausted: func(e *APIError) error { return limitReached(e) },
	codes.Unavailable:       func(e *APIError) error { return unavailable(e) },
	codes.DeadlineExceeded:  func(e *APIError) error { return &DeadlineExceededError{e} },
	codes.Unimplemented:     func(e *APIError) error { return &NotAvailableError{e} },
	codes.Internal:          func(e *APIError) error { return internal(e) },
}
