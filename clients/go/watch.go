package milepost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"

	pb "milepost.dev/go/gen/milepost/v1"
)

// maxOutage is how long a watch that has worked before tries to connect again.
const maxOutage = 5 * time.Minute

// Watch iterates over the changes of an operation, up to its end, over as many connections as it
// takes. Every change of status comes exactly once and in order; of the progress a slow reader
// gets only the newest report.
//
// After revision 0, the first item is the present state. After another revision, only later ones
// follow. The iteration ends after the first error.
func (c *Client) Watch(
	ctx context.Context, id string, afterRevision int64,
) iter.Seq2[*Operation, error] {
	return func(yield func(*Operation, error) bool) {
		watch := &watch{
			client: c, yield: yield, backoff: newBackoff(maxPause), end: time.Now().Add(c.deadline),
			request: &pb.WatchOperationRequest{OperationId: id, AfterRevision: afterRevision},
		}
		if err := watch.run(ctx); err != nil {
			yield(nil, err)
		}
	}
}

// errBreak ends a watch whose reader has left its loop.
var errBreak = errors.New("the reader has left")

// watch is one sequence of changes over several streams.
type watch struct {
	client    *Client
	request   *pb.WatchOperationRequest
	yield     func(*Operation, error) bool
	backoff   *backoff
	end       time.Time // of the tries to connect again
	hasWorked bool
}

func (w *watch) run(ctx context.Context) error {
	for {
		err := w.stream(ctx)
		if errors.Is(err, io.EOF) || errors.Is(err, errBreak) {
			return nil
		}
		if cause := interruption(ctx, err); cause != nil {
			return cause
		}
		pause := w.backoff.pause(err)
		if !w.isTemporary(err) || time.Now().Add(pause).After(w.end) {
			return err
		}
		if cause := sleep(ctx, pause); cause != nil {
			return fmt.Errorf("milepost: %w", cause)
		}
	}
}

// stream reads one stream to its end.
func (w *watch) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := openStream[pb.WatchOperationResponse](
		ctx, w.client, &pb.OperationService_ServiceDesc.Streams[0],
		pb.OperationService_WatchOperation_FullMethodName)
	if err != nil {
		return err
	}
	// An error of the writing is that of the reading.
	if err := stream.SendMsg(proto.CloneOf(w.request)); err == nil {
		_ = stream.CloseSend()
	}
	for {
		item, err := stream.receive()
		if err != nil {
			return w.client.streamFailure(w.request, err)
		}
		w.hasWorked = true
		if operation := item.GetOperation(); operation != nil {
			w.request.AfterRevision = operation.GetRevision()
			if !w.yield(fromOperation(operation), nil) {
				return errBreak
			}
		}
		// Not before the yield: the reader may spend any time on the change.
		w.end = time.Now().Add(maxOutage)
		w.backoff.reset()
	}
}

// isTemporary returns true if the watch is to connect again. A limit does not end one that has
// worked.
func (w *watch) isTemporary(err error) bool {
	return is[*UnavailableError](err) || isDisruption(err, w.hasWorked) ||
		(w.hasWorked && is[*LimitReachedError](err))
}

// streamFailure returns the typed error of the end of a stream; io.EOF as it is.
func (c *Client) streamFailure(request proto.Message, err error) error {
	if errors.Is(err, io.EOF) || is[*UndecodableAnswerError](err) {
		return err
	}
	return c.refused(request, err)
}
