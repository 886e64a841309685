package milepost

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "milepost.dev/go/gen/milepost/v1"
)

// still returns a stream that a test drives by hand: nothing is sent.
func still() *progressStream {
	s := newProgressStream(nil)
	s.running = make(chan struct{})
	return s
}

// heldFor holds an operation on the stream.
func heldFor(s *progressStream, id string, lease time.Duration) *held {
	now := time.Now()
	o := fromOperation(&pb.Operation{
		Id: id, Attempt: 1, Revision: 2, StartTime: timestamppb.New(now),
		LeaseExpireTime: timestamppb.New(now.Add(lease)),
	})
	return s.hold(o, func(error) {}, func() {})
}

func report(t *testing.T, s *progressStream, h *held, progress float64, message string) {
	t.Helper()
	update := &pb.ProgressUpdate{Progress: &progress, Message: optional(message)}
	if err := s.report(h, update); err != nil {
		t.Fatal(err)
	}
}

// TestWhatIsDueIsOneMessage of at most 1,000 updates.
func TestWhatIsDueIsOneMessage(t *testing.T) {
	s := still()
	for n := range 1_500 {
		report(t, s, heldFor(s, fmt.Sprint(n), time.Minute), 0.5, "")
	}
	sizes := []int{}
	for range 3 {
		updates, _ := s.dueUpdates(time.Now())
		sizes = append(sizes, len(updates))
	}
	if sizes[0] != 1_000 || sizes[1] != 500 || sizes[2] != 0 {
		t.Errorf("updates of the messages: %v", sizes)
	}
}

// TestLargeReportsAreSeveralMessages that gRPC accepts.
func TestLargeReportsAreSeveralMessages(t *testing.T) {
	s := still()
	for n := range 50 {
		report(t, s, heldFor(s, fmt.Sprint(n), time.Minute), 0.5, strings.Repeat("x", 60_000))
	}
	if updates, _ := s.dueUpdates(time.Now()); len(updates) == 0 || len(updates) > 9 {
		t.Errorf("%d updates", len(updates))
	}
}

// TestNewerReportWaitsForAnAnswer to the last one, and each answer stores the oldest.
func TestNewerReportWaitsForAnAnswer(t *testing.T) {
	s := still()
	h := heldFor(s, "one", time.Minute)
	now := time.Now()
	report(t, s, h, 0.1, "")
	if updates, _ := s.dueUpdates(now); len(updates) != 1 {
		t.Errorf("first: %v", updates)
	}
	report(t, s, h, 0.2, "")
	if updates, _ := s.dueUpdates(now); len(updates) != 0 {
		t.Errorf("before the answer: %v", updates)
	}
	if updates, _ := s.dueUpdates(now.Add(maxAnswerTime)); len(updates) != 1 {
		t.Errorf("without an answer: %v", updates)
	}
	report(t, s, h, 0.3, "")
	if updates, _ := s.dueUpdates(now.Add(2 * maxAnswerTime)); len(updates) != 1 {
		t.Errorf("again without an answer: %v", updates)
	}
	for stored := 1; stored <= 3; stored++ { // also with three reports without an answer
		s.take(acknowledgement(&pb.StreamProgressRequest{
			Updates: []*pb.ProgressUpdate{{OperationId: "one"}},
		}))
		if h.storedVersion != stored {
			t.Errorf("after %d answers, version %d is stored", stored, h.storedVersion)
		}
	}
}

// TestBareRenewalsAfterALimit until the retry time, when the report follows.
func TestBareRenewalsAfterALimit(t *testing.T) {
	s := still()
	h := heldFor(s, "one", time.Minute)
	report(t, s, h, 0.5, "")
	if pause := s.beginPause(time.Minute, true); pause > time.Second {
		t.Errorf("no renewal for %v", pause)
	}
	updates, _ := s.dueUpdates(h.dueTime)
	if len(updates) != 1 || updates[0].Progress != nil {
		t.Errorf("while limited: %v", updates)
	}
	h.acknowledge()
	if h.storedVersion != 0 {
		t.Error("the answer to a renewal stored a report")
	}
	s.quietEnd = time.Time{}
	updates, _ = s.dueUpdates(time.Now())
	if len(updates) != 1 || updates[0].GetProgress() != 0.5 {
		t.Errorf("after the limit: %v", updates)
	}
}

// TestReportsThatGRPCCannotSend are refused, and the stream goes on.
func TestReportsThatGRPCCannotSend(t *testing.T) {
	f := &fake{stream: func(s grpc.BidiStreamingServer[pb.StreamProgressRequest, pb.StreamProgressResponse]) error {
		for {
			request, err := s.Recv()
			if err != nil {
				return nil
			}
			if err := s.Send(acknowledgement(request)); err != nil {
				return err
			}
		}
	}}
	client := f.dial(t)
	work := hold(client, "one", time.Hour)
	large := strings.Repeat("x", 3_000_000)
	for _, err := range []error{
		work.Progress(0.1, large), work.Progress(0.1, "\xff"), work.SaveCheckpoint(large),
		work.SaveCheckpoint(&anypb.Any{TypeUrl: large}),
	} {
		if !is[*ValueError](err) {
			t.Errorf("got %v", err)
		}
	}
	if err := work.Progress(0.5, "fine"); err != nil {
		t.Fatal(err)
	}
	if err := work.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	work.detach()
}
