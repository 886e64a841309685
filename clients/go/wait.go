package milepost

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "milepost.dev/go/gen/milepost/v1"
)

// Forever is the timeout of a wait that only its context ends.
const Forever time.Duration = math.MaxInt64

// maxWait bounds one call of a wait. The next one follows at once.
const maxWait = 50 * time.Second

// Wait returns the operation at its end, or as it stands when the timeout has passed.
//
// A limit that is reached meanwhile only delays the next call, until the service allows it.
func (c *Client) Wait(ctx context.Context, id string, timeout time.Duration) (*Operation, error) {
	begin, timeout := time.Now(), max(0, timeout)
	left := func() time.Duration {
		if timeout == Forever {
			return Forever
		}
		return max(0, timeout-time.Since(begin))
	}
	asked, asking := min(left(), maxWait), begin
	operation, err := c.waitOnce(ctx, id, asked)
	if err != nil {
		return nil, err
	}
	backoff := newBackoff(maxLongPause)
	for !operation.Status.IsTerminal() && left() > 0 {
		if time.Since(asking) < asked/2 { // an early answer: of a service that stops, perhaps
			if cause := sleep(ctx, min(backoff.pause(nil), left())); cause != nil {
				return nil, fmt.Errorf("milepost: %w", cause)
			}
		}
		asked, asking = min(left(), maxWait), time.Now()
		latest, err := c.waitOnce(ctx, id, asked)
		switch {
		case err == nil:
			operation = latest
		case !is[*LimitReachedError](err):
			return nil, err
		default:
			if cause := sleep(ctx, min(backoff.pause(err), left())); cause != nil {
				return nil, fmt.Errorf("milepost: %w", cause)
			}
		}
	}
	return operation, nil
}

func (c *Client) waitOnce(
	ctx context.Context, id string, timeout time.Duration,
) (*Operation, error) {
	answer, err := send[pb.WaitOperationResponse](
		ctx, c, pb.OperationService_WaitOperation_FullMethodName,
		&pb.WaitOperationRequest{OperationId: id, Timeout: durationpb.New(timeout)}, timeout)
	if err != nil {
		return nil, err
	}
	return fromOperation(answer.GetOperation()), nil
}

// Result waits for the end of an operation, and stores its result in the value that into points
// to, as [encoding/json] does; a protobuf message is unpacked. With a nil into, it only waits.
//
// It returns an [*OperationFailedError], an [*OperationCancelledError], or, when the timeout has
// passed, a [*StillRunningError].
func (c *Client) Result(ctx context.Context, id string, timeout time.Duration, into any) error {
	operation, err := c.Wait(ctx, id, timeout)
	if err != nil {
		return err
	}
	switch operation.Status {
	case Completed:
		return operation.DecodeResult(into)
	case Failed:
		return &OperationFailedError{operation}
	case Cancelled:
		return &OperationCancelledError{operation}
	default:
		return &StillRunningError{operation}
	}
}
