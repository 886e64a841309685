package milepost

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "milepost.dev/go/gen/milepost/v1"
)

const (
	// messagePace is the time between two messages: what is reported within it is one message.
	messagePace = 50 * time.Millisecond
	// maxUpdates is the number of updates of one message that the service accepts.
	maxUpdates = 1_000
	// maxUpdatesBytes bounds a message of several updates. The largest update alone has less.
	maxUpdatesBytes = 512 * 1024
)

// sender is the writing half of a stream.
type sender interface {
	SendMsg(message any) error
	CloseSend() error
}

// write sends reports until the stream or the client ends. The reading learns of the error.
func (s *progressStream) write(ctx context.Context, stream sender) {
	for {
		updates, isDone := s.dueUpdates(time.Now())
		if isDone {
			_ = stream.CloseSend()
			return
		}
		if len(updates) == 0 {
			if !s.wait(ctx, s.wake, s.untilDue()) {
				return
			}
			continue
		}
		if stream.SendMsg(&pb.StreamProgressRequest{Updates: updates}) != nil {
			return
		}
		if !s.wait(ctx, nil, messagePace) {
			return
		}
	}
}

// dueUpdates takes the updates of the next message, the most urgent ones first. isDone is true if
// the client is closed and nothing is left to send.
func (s *progressStream) dueUpdates(now time.Time) (updates []*pb.ProgressUpdate, isDone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !now.Before(s.nextDue) {
		s.enqueueDue(now)
	}
	isQuiet := now.Before(s.quietEnd) && !s.isClosing
	waiting := s.ready(now, isQuiet)
	slices.SortFunc(waiting, func(a, b *held) int { return a.leaseEnd().Compare(b.leaseEnd()) })
	size := 0
	for _, h := range waiting {
		size += proto.Size(h.update)
		if len(updates) > 0 && (size > maxUpdatesBytes || len(updates) == maxUpdates) {
			break
		}
		if !isQuiet || !h.isUnstored() {
			delete(s.unsent, h)
		}
		updates = append(updates, h.take(now, isQuiet))
		s.expect(h.dueTime)
	}
	return updates, s.isClosing && len(updates) == 0
}

// ready returns the operations with something to send now, and expects the others.
func (s *progressStream) ready(now time.Time, isQuiet bool) []*held {
	waiting := make([]*held, 0, len(s.unsent))
	for h := range s.unsent {
		isReady, next := !now.Before(h.readyTime()), h.readyTime()
		if isQuiet {
			isReady, next = !now.Before(h.earlyTime), s.quietEnd
			if h.dueTime.Before(next) {
				next = h.dueTime
			}
		}
		if isReady || s.isClosing {
			waiting = append(waiting, h)
		} else {
			s.expect(next)
		}
	}
	return waiting
}

// enqueueDue enqueues the operations whose leases are to be renewed, if there is one.
func (s *progressStream) enqueueDue(now time.Time) {
	s.nextDue = now.Add(time.Hour)
	for _, h := range s.held {
		if h.earlyTime.After(now) {
			s.expect(h.dueTime)
		} else {
			s.unsent[h] = struct{}{}
		}
	}
}

// untilDue returns the time until there is something to send, if nothing is reported before.
func (s *progressStream) untilDue() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Until(s.nextDue)
}

// wait returns true after the pause, or when it is woken, and false at the end of the stream.
func (s *progressStream) wait(ctx context.Context, wake <-chan struct{}, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-s.closing:
	case <-ctx.Done():
		return false
	}
	return true
}
