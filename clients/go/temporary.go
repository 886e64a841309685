package milepost

import (
	"errors"
	"time"

	"google.golang.org/grpc/codes"
)

// broken holds the codes of a call that was broken on its way, besides UNAVAILABLE: proxies reset
// the streams of a lost replica (INTERNAL) or answer with an error page (UNKNOWN), and a service
// that stops may cancel.
var broken = map[codes.Code]bool{codes.Internal: true, codes.Unknown: true, codes.Canceled: true}

// as returns the error of the type in the chain of err, or nil.
func as[E error](err error) (E, bool) { return errors.AsType[E](err) }

func is[E error](err error) bool {
	_, found := as[E](err)
	return found
}

func retryAfter(err error) time.Duration {
	if facts, ok := as[*APIError](err); ok {
		return facts.RetryAfter
	}
	return 0
}

// isDisruption returns true if a call was broken on its way: the service itself gives a reason.
// A stream that has worked before may also meet a proxy that is full, or has no route now.
func isDisruption(err error, hasWorked bool) bool {
	facts, ok := as[*APIError](err)
	if !ok || facts.Reason != "" || is[*UndecodableAnswerError](err) {
		return false
	}
	switch facts.Code {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	case codes.ResourceExhausted, codes.Unimplemented:
		return hasWorked
	default:
		return broken[facts.Code]
	}
}

// isPassing returns true if another try of the same call may find the service.
func isPassing(err error) bool { return is[*UnavailableError](err) || isDisruption(err, false) }

// isVagueLimit returns true for a limit without a reason, as of a proxy or of the size of a message.
func isVagueLimit(err error) bool {
	facts, ok := as[*APIError](err)
	return ok && facts.Reason == "" && facts.Code == codes.ResourceExhausted
}

// isUnexplained returns true for the refusal of a proxy or of gRPC that may be temporary or not.
func isUnexplained(err error) bool {
	facts, ok := as[*APIError](err)
	if !ok || facts.Reason != "" || is[*UndecodableAnswerError](err) {
		return false
	}
	return broken[facts.Code] || facts.Code == codes.ResourceExhausted
}

// isTemporary returns true if the same request may succeed later.
func isTemporary(err error) bool {
	return is[*UnavailableError](err) || is[*DeadlineExceededError](err) ||
		is[*RateLimitedError](err) || is[*LostRaceError](err) || is[*InternalError](err) ||
		isUnexplained(err)
}

// isOver returns true if a worker must stop working on the operation.
func isOver(err error) bool {
	return is[*IllegalTransitionError](err) || is[*StaleAttemptError](err) || is[*NotFoundError](err)
}
