package milepost

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// maxLimited is how long a page after the first one is asked for while the rate limit refuses it.
const maxLimited = 5 * time.Minute

// fetcher returns the items of the page of a token, and the next token. The first page has an
// empty token, and so has the page after the last one.
type fetcher[T any] func(token string) ([]T, string, error)

// pages iterates over the items of all pages.
//
// A rate limit refuses the first page, because its rate is up to the user. The client asks
// for the other pages by itself, so a limit only delays them.
func pages[T any](ctx context.Context, fetch fetcher[T]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		items, token, err := fetch("")
		for {
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if token == "" {
				return
			}
			items, token, err = fetch.next(ctx, token)
		}
	}
}

// next returns the page of the token once the rate limit allows it.
func (fetch fetcher[T]) next(ctx context.Context, token string) ([]T, string, error) {
	end := time.Now().Add(maxLimited)
	backoff := newBackoff(maxPause)
	for {
		items, next, err := fetch(token)
		if !is[*RateLimitedError](err) {
			return items, next, err
		}
		pause := backoff.pause(err)
		if time.Now().Add(pause).After(end) {
			return nil, "", err
		}
		if cause := sleep(ctx, pause); cause != nil {
			return nil, "", fmt.Errorf("milepost: %w", cause)
		}
	}
}
