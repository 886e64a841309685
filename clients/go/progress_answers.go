package milepost

import (
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	pb "milepost.dev/go/gen/milepost/v1"
)

// take passes what the service says on to the operations that it is about.
func (s *progressStream) take(response *pb.StreamProgressResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, acknowledgement := range response.GetAcknowledgements() {
		s.acknowledge(acknowledgement)
	}
	switch item := response.GetItem().(type) {
	case *pb.StreamProgressResponse_Acknowledgement:
		s.acknowledge(item.Acknowledgement)
	case *pb.StreamProgressResponse_Interruption:
		s.interrupt(item.Interruption)
	case *pb.StreamProgressResponse_Error:
		s.refuse(item.Error)
	}
}

func (s *progressStream) acknowledge(item *pb.Acknowledgement) {
	h := s.held[item.GetOperationId()]
	if h == nil || (item.GetAttempt() != 0 && item.GetAttempt() != h.update.GetAttempt()) {
		return
	}
	h.acknowledge()
	if _, ok := s.unsent[h]; ok {
		s.wakeLocked() // a newer report has waited for this
	}
}

// interrupt ignores what is certainly about an earlier attempt.
func (s *progressStream) interrupt(item *pb.Interruption) {
	h := s.held[item.GetOperationId()]
	if h == nil || item.GetRevision() <= h.revision {
		return
	}
	if item.GetKind() == pb.InterruptionKind_INTERRUPTION_KIND_CANCEL_REQUESTED {
		go h.onCancelRequest()
		h.isUrgent = true
		s.enqueueLocked(h) // a sign of life records that the request was delivered
		return
	}
	h.refuse(interruptionError(item))
}

func (s *progressStream) refuse(item *pb.UpdateError) {
	h := s.held[item.GetOperationId()]
	if h == nil {
		return
	}
	attempt := strconv.Itoa(int(h.update.GetAttempt()))
	if expected, ok := item.GetMetadata()["expected"]; ok &&
		item.GetReason() == "STALE_ATTEMPT" && expected != attempt {
		return
	}
	err := typed(&APIError{
		Code: codes.Unknown, Reason: item.GetReason(), Message: item.GetMessage(),
		Metadata: item.GetMetadata(),
	})
	h.answered()
	if isTemporary(err) || is[*StreamFullError](err) {
		time.AfterFunc(h.backoff.pause(err), func() { s.enqueue(h) })
		return
	}
	h.refuse(err)
}

// interruptionError returns the error that a later report of the same work would be refused with.
func interruptionError(item *pb.Interruption) error {
	id := item.GetOperationId()
	switch item.GetKind() {
	case pb.InterruptionKind_INTERRUPTION_KIND_CANCELLED:
		return typed(&APIError{
			Code: codes.FailedPrecondition, Reason: "ILLEGAL_TRANSITION",
			Message:  "operation " + id + " was cancelled",
			Metadata: map[string]string{"transition": "progress", "status": string(Cancelled)},
		})
	case pb.InterruptionKind_INTERRUPTION_KIND_EXPIRED:
		return typed(&APIError{
			Code: codes.NotFound, Reason: "OPERATION_EXPIRED",
			Message:  "operation " + id + " has expired",
			Metadata: map[string]string{"operation_id": id},
		})
	default:
		return staleAttempt(id)
	}
}

func staleAttempt(id string) error {
	return typed(&APIError{
		Code: codes.Aborted, Reason: "STALE_ATTEMPT",
		Message:  "operation " + id + " is no longer held by this worker",
		Metadata: map[string]string{"operation_id": id},
	})
}

// isVague returns true if a write failed before gRPC knew the reason, which was the earlier one.
func isVague(err error) bool {
	facts, ok := as[*APIError](err)
	return ok && facts.Reason == "" && facts.Code == codes.Internal
}
