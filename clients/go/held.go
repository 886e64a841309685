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
	request         *pb.StreamProgressRequest // the newest report
	revision        int64                     // at the start; interruptions have later ones
	lease           time.Duration
	backoff         *backoff // after temporary refusals of a report
	version         int
	storedVersion   int
	renewalTime     time.Time
	dueTime         time.Time    // of the next renewal, if nothing is reported before
	unanswered      []sentReport // the oldest, and the newest
	problem         error        // of a refused report
	over            error        // the reason why the work must stop
	stored          chan struct{}
	onOver          func(error)
	onCancelRequest func()
}

func newHeld(s *progressStream, o *Operation, onOver func(error), onCancelRequest func()) *held {
	now := time.Now()
	h := &held{
		stream:   s,
		request:  &pb.StreamProgressRequest{OperationId: o.ID, Attempt: new(int32(o.Attempt))},
		revision: o.Revision, lease: leaseOf(o), backoff: newBackoff(maxPause), renewalTime: now,
		stored: make(chan struct{}), onOver: onOver, onCancelRequest: onCancelRequest,
	}
	h.dueTime = now.Add(min(firstReportDelay, h.interval()))
	return h
}

// leaseOf returns the length of the lease, by the clock of the service alone.
func leaseOf(o *Operation) time.Duration {
	if o.LeaseExpireTime.IsZero() || o.StartTime.IsZero() {
		return defaultLease
	}
	return o.LeaseExpireTime.Sub(o.StartTime)
}

func (h *held) id() string { return h.request.GetOperationId() }

func (h *held) interval() time.Duration { return h.lease / renewalsPerLease }

// leaseEnd returns the time at which the lease may run out: the smaller, the more urgent.
func (h *held) leaseEnd() time.Time { return h.renewalTime.Add(h.lease) }

// readyTime returns the time at which a report may follow the last one. Until then the answer to it
// is awaited: so an answer is that of one report, and says that this one is stored. The service
// commits one report a second, and would merge the others.
func (h *held) readyTime() time.Time {
	if len(h.unanswered) == 0 {
		return time.Time{}
	}
	return h.unanswered[len(h.unanswered)-1].time.Add(maxAnswerTime)
}

// isReady returns true if a report may be sent now: always, if the lease is to be renewed.
func (h *held) isReady(now time.Time) bool {
	return !now.Before(h.readyTime()) || !now.Before(h.dueTime)
}

func (h *held) isUnstored() bool { return h.version > h.storedVersion }

// merge makes the report part of the newest one.
func (h *held) merge(report *pb.StreamProgressRequest) {
	// A copy: gRPC may be reading the message that it was given.
	merged := proto.CloneOf(h.request)
	if report.Progress != nil {
		merged.Progress = report.Progress
	}
	if report.Message != nil {
		merged.Message = report.Message
	}
	if report.Checkpoint != nil {
		merged.Checkpoint = report.Checkpoint
	}
	h.request = merged
	h.version++
}

// take returns the newest report, or a mere renewal if that is stored; it is sent now.
func (h *held) take(now time.Time) *pb.StreamProgressRequest {
	h.dueTime = now.Add(h.interval())
	sent := sentReport{h.version, now}
	if len(h.unanswered) < 2 {
		h.unanswered = append(h.unanswered, sent)
	} else {
		h.unanswered[1] = sent
	}
	if h.isUnstored() {
		return h.request
	}
	return h.renewal()
}

func (h *held) renewal() *pb.StreamProgressRequest {
	return &pb.StreamProgressRequest{OperationId: h.id(), Attempt: h.request.Attempt}
}

// acknowledge notes that the service has stored a report, and renewed the lease with it. Of the
// unanswered reports only the oldest one is certainly stored.
func (h *held) acknowledge() {
	if len(h.unanswered) > 0 {
		oldest := h.unanswered[0]
		h.unanswered = h.unanswered[1:]
		h.renewalTime = oldest.time
		h.settle(oldest.version)
	}
	h.backoff.reset()
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
		h.request = h.renewal()
		h.settle(h.version)
	}
}
