package milepost

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	pb "milepost.dev/go/gen/milepost/v1"
)

const (
	// steadyStream is the life of a stream after which the pauses begin anew.
	steadyStream = 10 * time.Second
	// closeTimeout bounds the wait of close for the acknowledgements of the last reports.
	closeTimeout = 2 * time.Second
)

// progressStream is the stream that all work of a client shares. It opens for held operations,
// reconnects, and renews all leases.
//
// Reports leave it in the order of their urgency: first the operation whose lease runs out first.
// After a disconnection the newest report of every operation is sent again, because the service
// notifies a stream of a cancel only if the operation was reported on it. After a rate limit only
// unanswered reports and due renewals are.
type progressStream struct {
	client *Client
	wake   chan struct{} // holds one token when there may be something to send
	ctx    context.Context
	cancel context.CancelFunc

	mu          sync.Mutex
	held        map[string]*held
	unsent      map[*held]struct{}
	nextDue     time.Time // zero: unknown, look at all
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
func (s *progressStream) report(h *held, report *pb.StreamProgressRequest) error {
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
func (s *progressStream) lastReport(h *held) (*pb.StreamProgressRequest, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit := h.renewalTime.Add(h.interval()); h.dueTime.Before(limit) {
		h.dueTime = limit
	}
	if h.isUnstored() && h.problem == nil {
		return h.request, h.version
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
	backoff := newBackoff(maxLongPause)
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
		select {
		case <-s.closing:
			return
		case <-time.After(backoff.pause(err)):
		}
		s.enqueueAgain(!isLimited)
	}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		if everything || len(h.unanswered) > 0 {
			s.unsent[h] = struct{}{}
			h.unanswered = nil
		}
	}
	s.nextDue = time.Time{} // time has passed without a look at the leases
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
			return s.client.streamFailure(err)
		}
		s.setAnswered(true)
		s.take(response)
	}
}

// sender is the writing half of a stream.
type sender interface {
	SendMsg(message any) error
	CloseSend() error
}

// write sends reports until the stream or the client ends. The reading learns of the error.
func (s *progressStream) write(ctx context.Context, stream sender) {
	for {
		for _, h := range s.urgent(time.Now()) {
			if request := s.takeReport(h); request != nil && stream.SendMsg(request) != nil {
				return
			}
		}
		if s.isDone() {
			_ = stream.CloseSend()
			return
		}
		if !s.wait(ctx) {
			return
		}
	}
}

// urgent returns the operations with something to send now, the most urgent first.
func (s *progressStream) urgent(now time.Time) []*held {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !now.Before(s.nextDue) {
		s.enqueueDue(now)
	}
	waiting := make([]*held, 0, len(s.unsent))
	for h := range s.unsent {
		if s.isClosing || h.isReady(now) {
			waiting = append(waiting, h)
		} else {
			s.expect(h.readyTime())
		}
	}
	slices.SortFunc(waiting, func(a, b *held) int { return a.leaseEnd().Compare(b.leaseEnd()) })
	return waiting
}

// enqueueDue enqueues the operations whose leases are to be renewed.
func (s *progressStream) enqueueDue(now time.Time) {
	s.nextDue = now.Add(time.Hour)
	for _, h := range s.held {
		if h.dueTime.After(now) {
			s.expect(h.dueTime)
		} else {
			s.unsent[h] = struct{}{}
		}
	}
}

// takeReport returns what is to be sent about the operation, or nil.
func (s *progressStream) takeReport(h *held) *pb.StreamProgressRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.unsent[h]; !ok {
		return nil
	}
	delete(s.unsent, h)
	request := h.take(time.Now())
	s.expect(h.dueTime)
	return request
}

// isDone returns true if the client is closed and nothing is left to send.
func (s *progressStream) isDone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isClosing && len(s.unsent) == 0
}

// wait returns true when there may be something to send, and false at the end of the stream.
func (s *progressStream) wait(ctx context.Context) bool {
	s.mu.Lock()
	due := s.nextDue
	s.mu.Unlock()
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-s.wake:
	case <-timer.C:
	case <-s.closing:
	case <-ctx.Done():
		return false
	}
	return true
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
