package milepost

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "milepost.dev/go/gen/milepost/v1"
)

// fake answers as a test says, where a real service cannot be made to.
type fake struct {
	pb.UnimplementedOperationServiceServer
	pb.UnimplementedWorkerServiceServer
	create func(context.Context, *pb.CreateOperationRequest) (*pb.CreateOperationResponse, error)
	stream func(grpc.BidiStreamingServer[pb.StreamProgressRequest, pb.StreamProgressResponse]) error
}

func (f *fake) CreateOperation(
	ctx context.Context, request *pb.CreateOperationRequest,
) (*pb.CreateOperationResponse, error) {
	return f.create(ctx, request)
}

func (f *fake) StreamProgress(
	stream grpc.BidiStreamingServer[pb.StreamProgressRequest, pb.StreamProgressResponse],
) error {
	return f.stream(stream)
}

// dial returns a client of the fake.
func (f *fake) dial(t *testing.T, options ...Option) *Client {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	pb.RegisterOperationServiceServer(server, f)
	pb.RegisterWorkerServiceServer(server, f)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	dialer := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return listener.DialContext(ctx)
	})
	client, err := New("passthrough:///localhost", append(options, WithDialOptions(dialer))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func refusal(code codes.Code, reason string, pause time.Duration) error {
	refused, err := status.New(code, "refused").WithDetails(
		&errdetails.ErrorInfo{Domain: errorDomain, Reason: reason},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(pause)})
	if err != nil {
		panic(err)
	}
	return refused.Err()
}

// TestTriesShareARequestID and follow the pause that the service asks for.
func TestTriesShareARequestID(t *testing.T) {
	var ids, tokens []string
	var times []time.Time
	failures := []error{
		refusal(codes.Unavailable, "DRAINING", 200*time.Millisecond),
		status.Error(codes.Internal, "RST_STREAM"), status.Error(codes.Unknown, "error page"),
	}
	f := &fake{create: func(ctx context.Context, r *pb.CreateOperationRequest) (*pb.CreateOperationResponse, error) {
		header, _ := metadata.FromIncomingContext(ctx)
		tokens = append(tokens, header.Get("authorization")...)
		ids, times = append(ids, r.GetRequestId()), append(times, time.Now())
		if len(ids) <= len(failures) {
			return nil, failures[len(ids)-1]
		}
		return &pb.CreateOperationResponse{Operation: &pb.Operation{Id: "op_1"}}, nil
	}}
	count := 0
	client := f.dial(t, WithTokenSource(func(context.Context) (string, error) {
		count++
		return string(rune('a' + count - 1)), nil
	}))
	if o, err := client.Create(t.Context(), CreateRequest{Function: "f"}); err != nil || o.ID != "op_1" {
		t.Fatal(o, err)
	}
	if len(ids) != 4 || len(slices.Compact(ids)) != 1 || len(ids[0]) != 36 {
		t.Errorf("request ids: %v", ids)
	}
	if times[1].Sub(times[0]) < 200*time.Millisecond {
		t.Errorf("the second try came after %v", times[1].Sub(times[0]))
	}
	if !slices.Equal(tokens, []string{"Bearer a", "Bearer b", "Bearer c", "Bearer d"}) {
		t.Errorf("tokens: %v", tokens)
	}
}

// TestLimitsAndDeadlinesAreReturned without another try.
func TestLimitsAndDeadlinesAreReturned(t *testing.T) {
	tries := 0
	answer := refusal(codes.ResourceExhausted, "RATE_LIMITED", time.Second)
	f := &fake{create: func(ctx context.Context, _ *pb.CreateOperationRequest) (*pb.CreateOperationResponse, error) {
		if tries++; answer == nil {
			<-ctx.Done()
		}
		return nil, answer
	}}
	client := f.dial(t, WithDeadline(200*time.Millisecond))
	_, err := client.Create(t.Context(), CreateRequest{Function: "f"})
	if facts, ok := as[*APIError](err); !is[*RateLimitedError](err) || !ok || facts.RetryAfter != time.Second || tries != 1 {
		t.Errorf("got %v after %d tries", err, tries)
	}
	answer = nil
	_, err = client.Create(t.Context(), CreateRequest{Function: "f"})
	if !is[*DeadlineExceededError](err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	client = f.dial(t, WithTokenSource(func(context.Context) (string, error) { return "two words", nil }))
	if _, err = client.Create(t.Context(), CreateRequest{Function: "f"}); !is[*UnauthenticatedError](err) {
		t.Errorf("got %v", err)
	}
}

// TestFailingTokenSourceIsTemporary because its issuer may be away for a moment.
func TestFailingTokenSourceIsTemporary(t *testing.T) {
	f := &fake{create: func(context.Context, *pb.CreateOperationRequest) (*pb.CreateOperationResponse, error) {
		return &pb.CreateOperationResponse{Operation: &pb.Operation{Id: "op_1"}}, nil
	}}
	asked, isAway := 0, true
	source := WithTokenSource(func(context.Context) (string, error) {
		if asked++; isAway && asked < 3 {
			return "", errors.New("the issuer is away")
		}
		return "token", nil
	})
	if _, err := f.dial(t, source).Create(t.Context(), CreateRequest{Function: "f"}); err != nil || asked != 3 {
		t.Errorf("got %v after %d tries", err, asked)
	}
	asked = -1_000
	client := f.dial(t, source, WithDeadline(300*time.Millisecond))
	_, err := client.Create(t.Context(), CreateRequest{Function: "f"})
	// The last try can begin so late that it exceeds the deadline.
	if !(is[*UnavailableError](err) || is[*DeadlineExceededError](err)) || asked < -998 {
		t.Errorf("got %v after %d tries", err, 1_000+asked)
	}
}

// TestHangingTokenSourceIsBounded also for a watch, which has no deadline.
func TestHangingTokenSourceIsBounded(t *testing.T) {
	client := (&fake{}).dial(t, WithDeadline(100*time.Millisecond), WithTokenSource(
		func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, err := range client.Watch(ctx, "op_1", 0) {
		if !is[*UnavailableError](err) {
			t.Errorf("got %v", err)
		}
	}
}

// TestRequestThatCannotBeSentIsRefusedAtOnce though gRPC reports it like a broken call.
func TestRequestThatCannotBeSentIsRefusedAtOnce(t *testing.T) {
	client := (&fake{}).dial(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := client.Create(ctx, CreateRequest{Function: "\xff"}); !is[*ValueError](err) {
		t.Errorf("create: %v", err)
	}
	for _, err := range client.Watch(ctx, "\xff", 0) {
		if !is[*ValueError](err) {
			t.Errorf("watch: %v", err)
		}
	}
}

// TestLongestDurationsDoNotOverflow into a deadline that has passed.
func TestLongestDurationsDoNotOverflow(t *testing.T) {
	f := &fake{create: func(context.Context, *pb.CreateOperationRequest) (*pb.CreateOperationResponse, error) {
		return &pb.CreateOperationResponse{Operation: &pb.Operation{Id: "op_1"}}, nil
	}}
	client := f.dial(t, WithDeadline(Forever))
	_, err := send[pb.CreateOperationResponse](t.Context(), client,
		pb.OperationService_CreateOperation_FullMethodName, &pb.CreateOperationRequest{}, maxWait)
	if err != nil {
		t.Error(err)
	}
	if got := toInt32(1<<32 + 2); got != math.MaxInt32 {
		t.Errorf("2**32 + 2 became %d", got)
	}
}

// TestUndecodableAnswerIsNotTriedAgain because the service has accepted the request.
func TestUndecodableAnswerIsNotTriedAgain(t *testing.T) {
	tries := 0
	f := &fake{create: func(context.Context, *pb.CreateOperationRequest) (*pb.CreateOperationResponse, error) {
		tries++
		answer := &pb.CreateOperationResponse{}
		answer.ProtoReflect().SetUnknown([]byte{0x0a, 0x02, 0xff, 0xff}) // no operation decodes so
		return answer, nil
	}}
	_, err := f.dial(t).Create(t.Context(), CreateRequest{Function: "f"})
	if !is[*UndecodableAnswerError](err) || tries != 1 {
		t.Errorf("got %v after %d tries", err, tries)
	}
}

// TestUnknownAuthority is a service that cannot be reached.
func TestUnknownAuthority(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	client, err := New(server.Listener.Addr().String(), WithTLS(&tls.Config{MinVersion: tls.VersionTLS12}),
		WithAPIKey("key"), WithDeadline(300*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := client.Get(t.Context(), "op_1"); !is[*UnavailableError](err) {
		t.Errorf("got %v", err)
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// hold holds an operation with a lease of so many seconds.
func hold(client *Client, id string, lease time.Duration) *Work {
	now := time.Now()
	return newWork(client, fromOperation(&pb.Operation{
		Id: id, Attempt: 1, Revision: 2, StartTime: timestamppb.New(now),
		LeaseExpireTime: timestamppb.New(now.Add(lease)),
	}), func(error) {})
}

// acknowledgement answers all updates of a request.
func acknowledgement(request *pb.StreamProgressRequest) *pb.StreamProgressResponse {
	response := &pb.StreamProgressResponse{}
	for _, update := range request.GetUpdates() {
		response.Acknowledgements = append(response.Acknowledgements,
			&pb.Acknowledgement{OperationId: update.GetOperationId(), Attempt: 1})
	}
	return response
}

// TestMostUrgentLeaseIsRenewedFirst and each after a third of its lease.
func TestMostUrgentLeaseIsRenewedFirst(t *testing.T) {
	var mu sync.Mutex
	var order []string
	f := &fake{stream: func(s grpc.BidiStreamingServer[pb.StreamProgressRequest, pb.StreamProgressResponse]) error {
		for {
			request, err := s.Recv()
			if err != nil {
				return nil
			}
			mu.Lock()
			for _, update := range request.GetUpdates() {
				order = append(order, update.GetOperationId())
			}
			mu.Unlock()
			if err := s.Send(acknowledgement(request)); err != nil {
				return err
			}
		}
	}}
	client := f.dial(t)
	client.progress.mu.Lock() // so that all are due at once
	locked := client.progress
	held := []*held{}
	for _, each := range []struct {
		id    string
		lease time.Duration
	}{{"slow", time.Hour}, {"fast", 3 * time.Second}, {"middle", time.Minute}} {
		o := fromOperation(&pb.Operation{
			Id: each.id, Attempt: 1, StartTime: timestamppb.Now(),
			LeaseExpireTime: timestamppb.New(time.Now().Add(each.lease)),
		})
		h := newHeld(locked, o, func(error) {}, func() {})
		locked.held[each.id] = h
		held = append(held, h)
		locked.unsent[h] = struct{}{}
	}
	locked.wakeLocked()
	locked.mu.Unlock()
	eventually(t, "four reports", func() bool { // the fast one is renewed after one second
		mu.Lock()
		defer mu.Unlock()
		return len(order) >= 4
	})
	for _, h := range held {
		locked.drop(h)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(order, []string{"fast", "middle", "slow", "fast"}) {
		t.Errorf("order: %v", order)
	}
}

// TestStreamHonoursRetryInfo and sends only what was not answered after a limit.
func TestStreamHonoursRetryInfo(t *testing.T) {
	var mu sync.Mutex
	var begins []time.Time
	again := make(chan *pb.ProgressUpdate, 10)
	f := &fake{stream: func(s grpc.BidiStreamingServer[pb.StreamProgressRequest, pb.StreamProgressResponse]) error {
		mu.Lock()
		begins = append(begins, time.Now())
		isFirst := len(begins) == 1
		mu.Unlock()
		for {
			request, err := s.Recv()
			if errors.Is(err, io.EOF) || err != nil {
				return nil
			}
			for _, update := range request.GetUpdates() {
				if isFirst && update.Progress != nil {
					return refusal(codes.ResourceExhausted, "RATE_LIMITED", 500*time.Millisecond)
				}
				if !isFirst {
					again <- update
				}
			}
			if err := s.Send(acknowledgement(request)); err != nil {
				return err
			}
		}
	}}
	client := f.dial(t)
	answered, limited := hold(client, "answered", time.Hour), hold(client, "limited", time.Hour)
	eventually(t, "both are acknowledged", func() bool {
		client.progress.mu.Lock()
		defer client.progress.mu.Unlock()
		return len(answered.held.unanswered)+len(limited.held.unanswered) == 0 &&
			answered.held.dueTime.After(time.Now().Add(time.Minute)) &&
			limited.held.dueTime.After(time.Now().Add(time.Minute))
	})
	if err := limited.Progress(0.5, "half"); err != nil {
		t.Fatal(err)
	}
	update := <-again
	if update.GetOperationId() != "limited" || update.GetProgress() != 0.5 {
		t.Errorf("sent again: %v", update)
	}
	if err := limited.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(begins) != 2 || len(again) != 0 {
		t.Fatalf("%d streams, %d more reports", len(begins), len(again))
	}
	if pause := begins[1].Sub(begins[0]); pause < 700*time.Millisecond { // 200 ms of the first stream
		t.Errorf("the second stream began after %v", pause)
	}
	answered.detach()
}
