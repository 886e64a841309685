package milepost

import (
	"time"

	"google.golang.org/protobuf/proto"

	pb "milepost.dev/go/gen/milepost/v1"
)

const (
	// defaultLease is the assumed lease of an operation without one, which is watched for a cancel.
	defaultLease = 30 * time.Second
	// firstReportDelay delays the first report, which makes the service watch for a cancel: work
	// that ends before needs none.
	firstReportDelay = 200 * time.Millisecond
	// renewalsPerLease: two renewals may be lost before the lease is.
	renewalsPerLease = 3
	// earlyShare is the share of the time between two renewals by which one may come early, together
	// with others.
	earlyShare = 10
	// maxAnswerTime is how long a newer report waits for the answer to the last one.
	maxAnswerTime = 2 * time.Second
)

// sentReport is a report that was sent: its version, and the time.
type sentReport struct {
	version int
	time    time.Time
}

// held is an operation whose work is reported on the stream. The mutex of the stream guards it.
type held struct {
	stream          *progressStream
	update          *pb.ProgressUpdate // the newest report
	revision        int64              // at the start; interruptions have later ones
	lease           time.Duration
	backoff         *backoff // after temporary refusals of a report
	version         int
	storedVersion   int
	renewalTime     time.Time
	dueTime         time.Time // of the next renewal, if nothing is reported before
	earlyTime       time.Time // from which that may come together with others
	unanswered      []sentReport
	isUrgent        bool  // the next report does not wait for an answer
	problem         error // of a refused report
	over            error // the reason why the work must stop
	stored          chan struct{}
	onOver          func(error)
	onCancelRequest func()
}

func newHeld(s *progressStream, o *Operation, onOver func(error), onCancelRequest func()) *held {
	now := time.Now()
	h := &held{
		stream:   s,
		update:   &pb.ProgressUpdate{OperationId: o.ID, Attempt: new(int32(o.Attempt))},
		revision: o.Revision, lease: leaseOf(o), backoff: newBackoff(maxPause), renewalTime: now,
		stored: make(chan struct{}), onOver: onOver, onCancelRequest: onCancelRequest,
	}
	h.dueTime = now.Add(min(firstReportDelay, h.interval()))
	h.earlyTime = h.dueTime
	return h
}

// leaseOf returns the length of the lease, by the clock of the service alone.
func leaseOf(o *Operation) time.Duration {
	if o.LeaseExpireTime.IsZero() || o.StartTime.IsZero() {
		return defaultLease
	}
	return o.LeaseExpireTime.Sub(o.StartTime)
}

func (h *held) id() string { return h.update.GetOperationId() }

func (h *held) interval() time.Duration { return h.lease / renewalsPerLease }

// leaseEnd returns the time at which the lease may run out: the smaller, the more urgent.
func (h *held) leaseEnd() time.Time { return h.renewalTime.Add(h.lease) }

// readyTime returns the time at which a report may follow the last one. Until then the answer to it
// is awaited: so an answer is that of one report, and says that this one is stored. The service
// commits one report a second, and would coalesce the others.
func (h *held) readyTime() time.Time {
	if len(h.unanswered) == 0 || h.isUrgent {
		return time.Time{}
	}
	ready := h.unanswered[len(h.unanswered)-1].time.Add(maxAnswerTime)
	if h.dueTime.Before(ready) {
		return h.dueTime
	}
	return ready
}

func (h *held) isUnstored() bool { return h.version > h.storedVersion }

// merge makes the report part of the newest one.
func (h *held) merge(report *pb.ProgressUpdate) {
	// A copy: gRPC may be reading the message that it was given.
	merged := proto.CloneOf(h.update)
	if report.Progress != nil {
		merged.Progress = report.Progress
	}
	if report.Message != nil {
		merged.Message = report.Message
	}
	if report.Checkpoint != nil {
		merged.Checkpoint = report.Checkpoint
	}
	h.update = merged
	h.version++
}

// take returns the newest report, or a mere renewal if that is stored or isBare: the service does
// not count that as a write. It is sent now.
func (h *held) take(now time.Time, isBare bool) *pb.ProgressUpdate {
	h.dueTime = now.Add(h.interval())
	h.earlyTime = h.dueTime.Add(-h.interval() / earlyShare)
	h.isUrgent = false
	if isBare || !h.isUnstored() {
		h.unanswered = append(h.unanswered, sentReport{h.storedVersion, now})
		return h.renewal()
	}
	h.unanswered = append(h.unanswered, sentReport{h.version, now})
	return h.update
}

func (h *held) renewal() *pb.ProgressUpdate {
	return &pb.ProgressUpdate{OperationId: h.id(), Attempt: h.update.Attempt}
}

// answered removes the oldest report without an answer; ok is true if there was one.
func (h *held) answered() (oldest sentReport, ok bool) {
	if len(h.unanswered) == 0 {
		return sentReport{}, false
	}
	oldest, h.unanswered = h.unanswered[0], h.unanswered[1:]
	return oldest, true
}

// acknowledge notes that the service has stored a report, and renewed the lease with it. One
// acknowledgement may answer several reports; only the oldest one is certainly stored.
func (h *held) acknowledge() {
	if oldest, ok := h.answered(); ok {
		h.renewalTime = oldest.time
		h.settle(oldest.version)
	}
	h.backoff.reset()
}

// loseAcknowledgements notes that the stream has ended: what was sent on it gets no answer.
func (h *held) loseAcknowledgements() {
	if due := h.renewalTime.Add(h.interval()); len(h.unanswered) > 0 && due.Before(h.dueTime) {
		h.dueTime, h.earlyTime = due, due
	}
	h.unanswered = nil
}

// settle notes that the report of the version is stored.
func (h *held) settle(version int) {
	h.storedVersion = max(h.storedVersion, version)
	close(h.stored)
	h.stored = make(chan struct{})
}

// refuse notes that a report was refused for good: the next one returns the error.
func (h *held) refuse(err error) {
	if h.over != nil {
		return
	}
	if isOver(err) {
		h.over = err
		h.stream.dropLocked(h)
		h.settle(h.storedVersion) // wakes who waits for it
		go h.onOver(err)
	} else { // every renewal would be refused like the report
		h.problem = err
		h.update = h.renewal()
		h.settle(h.version)
	}
}
