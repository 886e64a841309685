package milepost

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstPause = 50 * time.Millisecond
	maxPause   = 2 * time.Second
	// maxLongPause bounds the pauses of ends and waits that go on by themselves.
	maxLongPause = 5 * time.Second
)

// backoff makes pauses that grow from try to try: each is about twice the one before, up to a
// maximum, shortened at random by up to a half, so that clients do not come back together.
type backoff struct {
	next time.Duration
	max  time.Duration
}

func newBackoff(max time.Duration) *backoff { return &backoff{next: firstPause, max: max} }

// reset begins again with the first pause: the last try was successful.
func (b *backoff) reset() { b.next = firstPause }

// pause returns the next pause, with the one that the error asks for added.
func (b *backoff) pause(err error) time.Duration {
	pause := b.next
	b.next = min(2*b.next, b.max)
	share := 0.5 + rand.Float64()/2
	return retryAfter(err) + time.Duration(float64(pause)*share)
}

// sleep returns when the pause has passed, or with the cause of the end of the context.
func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
