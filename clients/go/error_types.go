package milepost

// The types of the tree that is drawn at [APIError].

// InvalidRequestError is a malformed request. Nothing was read or changed.
type InvalidRequestError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *InvalidRequestError) Unwrap() error { return e.APIError }

// ProgressDecreaseError is a decrease of progress within one attempt, beyond a small tolerance.
type ProgressDecreaseError struct{ *InvalidRequestError }

// Unwrap returns the error one level up.
func (e *ProgressDecreaseError) Unwrap() error { return e.InvalidRequestError }

// UnauthenticatedError is a missing or invalid credential. Nothing was read.
type UnauthenticatedError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *UnauthenticatedError) Unwrap() error { return e.APIError }

// PermissionDeniedError is a credential without the role that the call requires.
type PermissionDeniedError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *PermissionDeniedError) Unwrap() error { return e.APIError }

// NotFoundError is a resource that does not exist or is not visible to you.
type NotFoundError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *NotFoundError) Unwrap() error { return e.APIError }

// APIKeyNotFoundError is an unknown API key.
type APIKeyNotFoundError struct{ *NotFoundError }

// Unwrap returns the error one level up.
func (e *APIKeyNotFoundError) Unwrap() error { return e.NotFoundError }

// DeliveryNotFoundError is a delivery that is not visible to you: unknown, foreign or purged.
type DeliveryNotFoundError struct{ *NotFoundError }

// Unwrap returns the error one level up.
func (e *DeliveryNotFoundError) Unwrap() error { return e.NotFoundError }

// SigningSecretNotFoundError is the absence of a signing secret: create an operation with a
// callback URL, or rotate.
type SigningSecretNotFoundError struct{ *NotFoundError }

// Unwrap returns the error one level up.
func (e *SigningSecretNotFoundError) Unwrap() error { return e.NotFoundError }

// OperationNotFoundError is an operation that is not visible to you: unknown, foreign, expired
// or deleted.
type OperationNotFoundError struct{ *NotFoundError }

// Unwrap returns the error one level up.
func (e *OperationNotFoundError) Unwrap() error { return e.NotFoundError }

// OperationExpiredError is your own operation, which has expired.
type OperationExpiredError struct{ *OperationNotFoundError }

// Unwrap returns the error one level up.
func (e *OperationExpiredError) Unwrap() error { return e.OperationNotFoundError }

// OperationDeletedError is your own operation, which was deleted.
type OperationDeletedError struct{ *OperationNotFoundError }

// Unwrap returns the error one level up.
func (e *OperationDeletedError) Unwrap() error { return e.OperationNotFoundError }

// IllegalTransitionError is a transition that the current status does not allow.
type IllegalTransitionError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *IllegalTransitionError) Unwrap() error { return e.APIError }

// CancelledError is a transition of a cancelled operation. The worker must stop.
type CancelledError struct{ *IllegalTransitionError }

// Unwrap returns the error one level up.
func (e *CancelledError) Unwrap() error { return e.IllegalTransitionError }

// CancellationNotRequestedError is an acknowledgement of a cancel that was not requested.
type CancellationNotRequestedError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *CancellationNotRequestedError) Unwrap() error { return e.APIError }

// ConflictError is a request based on an old copy. Read the operation again and retry.
type ConflictError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *ConflictError) Unwrap() error { return e.APIError }

// RevisionMismatchError is an operation that has changed since the expected revision.
type RevisionMismatchError struct{ *ConflictError }

// Unwrap returns the error one level up.
func (e *RevisionMismatchError) Unwrap() error { return e.ConflictError }

// StaleAttemptError is an attempt that has ended: its lease is lost, or another attempt has
// started.
type StaleAttemptError struct{ *ConflictError }

// Unwrap returns the error one level up.
func (e *StaleAttemptError) Unwrap() error { return e.ConflictError }

// LostRaceError is a transition that concurrent changes preceded at every try.
type LostRaceError struct{ *ConflictError }

// Unwrap returns the error one level up.
func (e *LostRaceError) Unwrap() error { return e.ConflictError }

// RevisionAheadError is a watch after a revision that the operation has not reached, or no
// longer has, because the database was restored.
type RevisionAheadError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *RevisionAheadError) Unwrap() error { return e.APIError }

// RequestIDReusedError is a request id that was used for a request with other content.
type RequestIDReusedError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *RequestIDReusedError) Unwrap() error { return e.APIError }

// UniqueKeyTakenError is a unique key that an active operation of the same owner has.
type UniqueKeyTakenError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *UniqueKeyTakenError) Unwrap() error { return e.APIError }

// WebhooksNotConfiguredError is a request about webhooks to a service that sends none.
type WebhooksNotConfiguredError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *WebhooksNotConfiguredError) Unwrap() error { return e.APIError }

// LimitReachedError is a limit. Nothing was changed.
type LimitReachedError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *LimitReachedError) Unwrap() error { return e.APIError }

// RateLimitedError is too many calls in a short time.
type RateLimitedError struct{ *LimitReachedError }

// Unwrap returns the error one level up.
func (e *RateLimitedError) Unwrap() error { return e.LimitReachedError }

// QuotaExceededError is the maximum number of active operations of one owner.
type QuotaExceededError struct{ *LimitReachedError }

// Unwrap returns the error one level up.
func (e *QuotaExceededError) Unwrap() error { return e.LimitReachedError }

// StreamFullError is the maximum number of operations on one progress stream.
type StreamFullError struct{ *LimitReachedError }

// Unwrap returns the error one level up.
func (e *StreamFullError) Unwrap() error { return e.LimitReachedError }

// UnavailableError is a temporary failure. The client retried until the deadline, where that is
// safe.
type UnavailableError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *UnavailableError) Unwrap() error { return e.APIError }

// StoreUnavailableError is a database of the service that does not answer.
type StoreUnavailableError struct{ *UnavailableError }

// Unwrap returns the error one level up.
func (e *StoreUnavailableError) Unwrap() error { return e.UnavailableError }

// IdentityProviderUnavailableError is an issuer of tokens that does not provide its keys to the
// service.
type IdentityProviderUnavailableError struct{ *UnavailableError }

// Unwrap returns the error one level up.
func (e *IdentityProviderUnavailableError) Unwrap() error { return e.UnavailableError }

// OverloadedError is a replica that holds as many calls as it accepts.
type OverloadedError struct{ *UnavailableError }

// Unwrap returns the error one level up.
func (e *OverloadedError) Unwrap() error { return e.UnavailableError }

// DrainingError is a replica that is shutting down.
type DrainingError struct{ *UnavailableError }

// Unwrap returns the error one level up.
func (e *DrainingError) Unwrap() error { return e.UnavailableError }

// DeadlineExceededError is no response in time. A change may or may not have happened.
type DeadlineExceededError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *DeadlineExceededError) Unwrap() error { return e.APIError }

// NotAvailableError is a documented call that this release of the service does not serve.
type NotAvailableError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *NotAvailableError) Unwrap() error { return e.APIError }

// UndecodableAnswerError is a response that this client cannot decode. The service has accepted
// the request.
type UndecodableAnswerError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *UndecodableAnswerError) Unwrap() error { return e.APIError }

// InternalError is a defect of the service. Metadata holds the trace id of its log entry.
type InternalError struct{ *APIError }

// Unwrap returns the error one level up.
func (e *InternalError) Unwrap() error { return e.APIError }

// IDsExhaustedError is a create for which the service found no free id.
type IDsExhaustedError struct{ *InternalError }

// Unwrap returns the error one level up.
func (e *IDsExhaustedError) Unwrap() error { return e.InternalError }
