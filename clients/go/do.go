package milepost

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// doTimeout bounds the tries of the end of an operation that Do has started.
const doTimeout = 5 * time.Minute

// Do starts an operation by its id, calls the handler, and ends the operation with the outcome, as
// a [Worker] does. While the service is unavailable, the end is tried again for 5 minutes.
//
// It returns the error of the handler, or the reason why the operation could not be ended so: a
// [CancelledError], for example. When the context ends, so does that of the handler; if the handler
// then returns an error, the operation is released.
func (c *Client) Do(ctx context.Context, id string, handler Handler, r StartRequest) error {
	operation, err := c.Start(ctx, id, r)
	if err != nil {
		return err
	}
	e := newExecution(ctx, c, operation, handler, slog.Default())
	e.endTimeout = doTimeout
	defer context.AfterFunc(ctx, func() {
		e.cancel(errors.Join(ErrWorkerStopped, context.Cause(ctx)))
	})()
	e.run()
	return e.err
}
