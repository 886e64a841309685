package milepost

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "milepost.dev/go/gen/milepost/v1"
)

// repeatable holds the methods without a request id that can be sent twice: reads, and claims, as
// what an unanswered claim has taken goes back to the service.
var repeatable = map[string]bool{
	pb.OperationService_GetOperation_FullMethodName:   true,
	pb.OperationService_ListOperations_FullMethodName: true,
	pb.OperationService_WaitOperation_FullMethodName:  true,
	pb.OperationService_ListEvents_FullMethodName:     true,
	pb.WebhookService_GetSigningSecret_FullMethodName: true,
	pb.WebhookService_ListDeliveries_FullMethodName:   true,
	pb.WorkerService_ClaimOperations_FullMethodName:   true,
}

// message is a pointer to the generated struct of a message.
type message[T any] interface {
	*T
	proto.Message
}

// send returns the answer to the request. A request that takes a request id and has none gets one,
// the same for every try. The deadline, and the waiting that is asked for, bound all tries.
func send[T any, M message[T]](
	ctx context.Context, c *Client, method string, request proto.Message, waiting time.Duration,
) (M, error) {
	canRepeat := identify(request) || repeatable[method]
	end := time.Now().Add(saturated(c.deadline, max(0, waiting)))
	limited, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	backoff := newBackoff(maxPause)
	for {
		answer := M(new(T))
		err := c.try(limited, method, request, answer)
		if err == nil {
			return answer, nil
		}
		if cause := interruption(ctx, err); cause != nil {
			return nil, cause
		}
		pause := backoff.pause(err)
		if !canRepeat || !isPassing(err) || time.Now().Add(pause).After(end) {
			return nil, err
		}
		if cause := sleep(ctx, pause); cause != nil {
			return nil, fmt.Errorf("milepost: %w", cause)
		}
	}
}

// try sends the request once.
func (c *Client) try(ctx context.Context, method string, request, answer proto.Message) error {
	if c.closed.Load() {
		return ErrClosed
	}
	reply := &received{message: answer}
	if err := c.conn.Invoke(ctx, method, request, reply); err != nil {
		return c.refused(request, err)
	}
	return undecodable(reply)
}

// refused returns the typed error of a request that has failed; a [ValueError] if gRPC cannot send
// it, which it reports like a broken call.
func (c *Client) refused(request proto.Message, err error) error {
	if status.Code(err) == codes.Internal {
		if _, problem := proto.Marshal(request); problem != nil {
			return &ValueError{problem: fmt.Sprintf("the request cannot be sent: %v", problem), err: problem}
		}
	}
	return c.failure(err)
}

// saturated returns the sum of two durations that are not negative, or the longest one that fits.
func saturated(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// failure returns the typed error of a failed call.
func (c *Client) failure(err error) error {
	if c.closed.Load() {
		return ErrClosed
	}
	return rebuild(err)
}

// undecodable returns the error of an answer that cannot be decoded, or nil.
func undecodable(reply *received) error {
	if reply.problem == nil {
		return nil
	}
	return &UndecodableAnswerError{&APIError{
		Code:    codes.Internal,
		Message: "the service accepted the call, but its response cannot be decoded",
	}}
}

// interruption returns the error of a call that its user has ended, or nil.
func interruption(ctx context.Context, err error) error {
	facts, ok := as[*APIError](err)
	if ctx.Err() == nil || (ok && facts.Reason != "") {
		return nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && is[*DeadlineExceededError](err) {
		return err
	}
	return fmt.Errorf("milepost: %w", context.Cause(ctx))
}

// identify gives the request a request id, unless it has one, and returns true if it takes one.
func identify(request proto.Message) bool {
	reflected := request.ProtoReflect()
	field := reflected.Descriptor().Fields().ByName("request_id")
	if field == nil {
		return false
	}
	if !reflected.Has(field) {
		reflected.Set(field, protoreflect.ValueOfString(newRequestID()))
	}
	return true
}

// newRequestID returns a random UUID.
func newRequestID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// stream is an open stream of requests and responses.
type stream[T any, M message[T]] struct {
	client *Client
	grpc.ClientStream
}

// openStream opens a stream without a deadline.
func openStream[T any, M message[T]](
	ctx context.Context, c *Client, description *grpc.StreamDesc, method string,
) (*stream[T, M], error) {
	if c.closed.Load() {
		return nil, ErrClosed
	}
	opened, err := c.conn.NewStream(ctx, description, method)
	if err != nil {
		return nil, c.failure(err)
	}
	return &stream[T, M]{client: c, ClientStream: opened}, nil
}

// receive returns the next response; io.EOF at the good end of the stream.
func (s *stream[T, M]) receive() (M, error) {
	answer := M(new(T))
	reply := &received{message: answer}
	if err := s.RecvMsg(reply); err != nil {
		return nil, err
	}
	return answer, undecodable(reply)
}
