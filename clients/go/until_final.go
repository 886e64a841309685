package milepost

import (
	"context"
	"time"
)

const (
	// maxDefects bounds the tries that may meet a defect of the service, which is unlikely to pass.
	maxDefects = 5
	// unexplainedTimeout is how long unexplained refusals in a row count as temporary.
	unexplainedTimeout = 5 * time.Minute
	// largeBytes is the size above which a limit without a reason is that of the size of a message.
	largeBytes = 1 << 20
)

// untilFinal sends a request, which has the same request id every time, again after every temporary
// refusal, and returns nil or the final one. The context bounds it. The size is that of the request.
func untilFinal(ctx context.Context, size int, send func(context.Context) error) error {
	backoff := newBackoff(maxLongPause)
	defects := 0
	var unexplainedEnd time.Time
	for {
		err := send(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if facts, ok := as[*APIError](err); ok && facts.Reason != "" && is[*InternalError](err) {
			defects++
		}
		pause := backoff.pause(err)
		switch {
		case !isUnexplained(err):
			unexplainedEnd = time.Time{}
		case unexplainedEnd.IsZero():
			unexplainedEnd = time.Now().Add(unexplainedTimeout)
		}
		isTooLarge := size > largeBytes && isVagueLimit(err)
		isTooLate := !unexplainedEnd.IsZero() && time.Now().Add(pause).After(unexplainedEnd)
		if !isTemporary(err) || defects > maxDefects || isTooLarge || isTooLate {
			return err
		}
		if cause := sleep(ctx, pause); cause != nil {
			return err
		}
	}
}
