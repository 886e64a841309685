package milepost

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	pb "milepost.dev/go/gen/milepost/v1"
)

const (
	// steadyStream is the life of a stream after which the pauses begin anew.
	steadyStream = 10 * time.Second
	// minLimitedPause is the shortest pause after a rate limit, if a lease is to be renewed before the
	// reports may go on.
	minLimitedPause = 250 * time.Millisecond
	// closeTimeout bounds the wait of close for the acknowledgements of the last reports.
	closeTimeout = 2 * time.Second
)

// progressStream is the stream that all work of a client shares. It opens for held operations,
// reconnects, and renews all leases.
//
// Reports leave it in the order of their urgency: first the operation whose lease runs out first.
// Reports that are due share a message, and the next one follows after a short pause. After a
// disconnection the newest report of every operation is sent again, because the service notifies a
// stream of a cancel only if the operation was reported on it. After a rate limit the reports wait
// for a while, and only leases are renewed, which the service does not limit.
type progressStream struct {
	client *Client
	wake   chan struct{} // holds one token when there may be something to send
	ctx    context.Context
	cancel context.CancelFunc

	mu          sync.Mutex
	held        map[string]*held
	unsent      map[*held]struct{}
	nextDue     time.Time // zero: unknown, look at all
	quietEnd    time.Time // until then only leases are renewed, after a rate limit
	wasAnswered bool
	running     chan struct{} // closed at the end of run; nil before it
	closing     chan struct{}
	isClosing   bool
}

func newProgressStream(client *Client) *progressStream {
	ctx, cancel := context.WithCancel(context.Background())
	return &progressStream{
		client: client, wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel,
		held: make(map[string]*held), unsent: make(map[*held]struct{}),
		closing: make(chan struct{}),
	}
}

// hold renews the lease of the operation from now on, and watches for its cancel. An earlier
// attempt of the operation is over.
//
// onOver is called once, with the reason, when the work must stop; onCancelRequest when a cancel
// with a grace is requested.
func (s *progressStream) hold(
	operation *Operation, onOver func(error), onCancelRequest func(),
) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	if earlier := s.held[operation.ID]; earlier != nil {
		earlier.refuse(staleAttempt(operation.ID))
	}
	h := newHeld(s, operation, onOver, onCancelRequest)
	s.held[operation.ID] = h
	s.expect(h.dueTime)
	s.wakeLocked()
	return h
}

// report sends the report as soon as possible; it replaces one that was not sent yet. It returns
// the error of an earlier report that was refused.
func (s *progressStream) report(h *held, report *pb.ProgressUpdate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.over != nil {
		return h.over
	}
	if problem := h.problem; problem != nil {
		h.problem = nil
		return problem
	}
	if s.held[h.id()] != h {
		return ErrWorkOver
	}
	h.merge(report)
	s.enqueueLocked(h)
	return nil
}

// flush returns when all reports so far are stored.
func (s *progressStream) flush(ctx context.Context, h *held) error {
	s.mu.Lock()
	version := h.version
	for {
		over, problem, isStored, stored := h.over, h.problem, h.storedVersion >= version, h.stored
		isHeld := s.held[h.id()] == h
		s.mu.Unlock()
		switch {
		case over != nil:
			return over
		case problem != nil:
			return problem
		case isStored:
			return nil
		case !isHeld:
			return ErrWorkOver
		}
		select {
		case <-stored:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		s.mu.Lock()
	}
}

// lastReport returns the newest report if it may not be stored, and its version. From now on the
// stream only renews the lease: the work is ending.
func (s *progressStream) lastReport(h *held) (*pb.ProgressUpdate, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit := h.renewalTime.Add(h.interval()); h.dueTime.Before(limit) {
		h.dueTime, h.earlyTime = limit, limit
	}
	if h.isUnstored() && h.problem == nil {
		return h.update, h.version
	}
	return nil, 0
}

// settle notes that a call has stored the report of the version.
func (s *progressStream) settle(h *held, version int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.settle(version)
}

// drop sends nothing more about the operation, and lets its lease run out.
func (s *progressStream) drop(h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(h)
}

func (s *progressStream) dropLocked(h *held) {
	if s.held[h.id()] == h {
		delete(s.held, h.id())
		delete(s.unsent, h)
	}
}

// close sends the last reports, and waits a bounded time for their acknowledgements.
func (s *progressStream) close() {
	s.mu.Lock()
	if !s.isClosing {
		s.isClosing = true
		close(s.closing)
	}
	running := s.running
	s.mu.Unlock()
	if running != nil {
		select {
		case <-running:
		case <-time.After(closeTimeout):
		}
	}
	s.cancel()
	if running != nil {
		<-running
	}
}

func (s *progressStream) enqueue(h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enqueueLocked(h)
}

func (s *progressStream) enqueueLocked(h *held) {
	if s.held[h.id()] == h {
		s.unsent[h] = struct{}{}
		s.wakeLocked()
	}
}

// expect notes that there is something to send at that time.
func (s *progressStream) expect(due time.Time) {
	if due.Before(s.nextDue) { // never, if it is zero: then all are looked at next
		s.nextDue = due
	}
}

func (s *progressStream) wakeLocked() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
	if s.running == nil && !s.isClosing {
		s.running = make(chan struct{})
		go s.run(s.running)
	}
}

// run holds one stream after the other, until the client is closed.
func (s *progressStream) run(done chan<- struct{}) {
	defer close(done)
	backoff := newBackoff(maxPause)
	isLimited := false
	for s.waitForWork() {
		s.setAnswered(false)
		begin := time.Now()
		err := s.exchange()
		isLimited = is[*LimitReachedError](err) || (isLimited && isVague(err))
		isSteady := time.Since(begin) > steadyStream
		isAway := err != nil && (is[*UnavailableError](err) || isDisruption(err, false))
		if isSteady || (s.answered() && !isLimited && isAway) {
			backoff.reset()
		}
		pause := s.beginPause(backoff.pause(err), isLimited)
		select {
		case <-s.closing:
			return
		case <-time.After(pause):
		}
	}
}

// beginPause enqueues what the last stream may have lost, and returns the time until the next one.
func (s *progressStream) beginPause(pause time.Duration, isLimited bool) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enqueueAgain(!isLimited)
	s.nextDue = time.Time{} // the next stream looks at the leases
	s.quietEnd = time.Time{}
	if !isLimited {
		return pause
	}
	s.quietEnd = time.Now().Add(pause)
	for _, h := range s.held {
		pause = min(pause, max(time.Until(h.dueTime), minLimitedPause))
	}
	return pause
}

// waitForWork returns true when operations are held, and false when the client is closed.
func (s *progressStream) waitForWork() bool {
	for {
		s.mu.Lock()
		count, isClosing := len(s.held), s.isClosing
		s.mu.Unlock()
		if isClosing {
			return false
		}
		if count > 0 {
			return true
		}
		select {
		case <-s.wake:
		case <-s.closing:
		}
	}
}

// enqueueAgain sends again what the last stream may have lost, or everything.
func (s *progressStream) enqueueAgain(everything bool) {
	for _, h := range s.held {
		if everything || len(h.unanswered) > 0 {
			s.unsent[h] = struct{}{}
			h.loseAcknowledgements()
		}
	}
}

// exchange holds one stream, from the first report to its end; it returns the reason of the end.
func (s *progressStream) exchange() error {
	ctx, cancel := context.WithCancel(s.ctx)
	stream, err := openStream[pb.StreamProgressResponse](
		ctx, s.client, &pb.WorkerService_ServiceDesc.Streams[0],
		pb.WorkerService_StreamProgress_FullMethodName)
	if err != nil {
		cancel()
		return err
	}
	written := make(chan struct{})
	defer func() { cancel(); <-written }()
	go func() {
		defer close(written)
		s.write(ctx, stream.ClientStream)
	}()
	for {
		response, err := stream.receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.client.streamFailure(nil, err)
		}
		s.setAnswered(true)
		s.take(response)
	}
}

func (s *progressStream) setAnswered(answered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wasAnswered = answered
}

func (s *progressStream) answered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wasAnswered
}
