package milepost_test

import (
	"context"
	"errors"
	"testing"

	milepost "milepost.dev/go"
)

// TestDo works on operations by their ids, without a worker.
func TestDo(t *testing.T) {
	s := startService(t)
	alice := s.client("CALLER")
	ctx := t.Context()
	create := func() string { return create(t, alice, uniqueFunction()).ID }

	t.Run("Completes", func(t *testing.T) {
		id := create()
		err := alice.Do(ctx, id, func(_ context.Context, work *milepost.Work) (any, error) {
			return "done", work.Progress(0.5, "half")
		}, milepost.StartRequest{Worker: "by hand"})
		if o := wait(t, alice, id); err != nil || o.Result != "done" || o.ProgressMessage != "half" {
			t.Errorf("%v %v", o, err)
		}
	})

	t.Run("ReturnsTheErrorOfTheHandler", func(t *testing.T) {
		id := create()
		failure := &milepost.PermanentFailure{Code: "C", Message: "m"}
		if err := alice.Do(ctx, id, fails(failure), milepost.StartRequest{}); !errors.Is(err, failure) {
			t.Errorf("got %v", err)
		}
		if o := wait(t, alice, id); o.Errors[0].Code != "C" {
			t.Errorf("got %v", o.Errors)
		}
	})

	t.Run("SaysThatTheResultCannotBeStored", func(t *testing.T) {
		var refused *milepost.ValueError
		if err := alice.Do(ctx, create(), returns(make(chan int)), milepost.StartRequest{}); !errors.As(err, &refused) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("SaysThatTheOperationIsCancelled", func(t *testing.T) {
		id := create()
		err := alice.Do(ctx, id, func(ctx context.Context, _ *milepost.Work) (any, error) {
			if _, err := alice.Cancel(ctx, id, milepost.CancelRequest{}); err != nil {
				return nil, err
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}, milepost.StartRequest{})
		var cancelled *milepost.CancelledError
		if !errors.As(err, &cancelled) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("ReleasesWhenItsContextEnds", func(t *testing.T) {
		id := create()
		ending, cancel := context.WithCancel(ctx)
		err := alice.Do(ending, id, func(ctx context.Context, _ *milepost.Work) (any, error) {
			cancel()
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}, milepost.StartRequest{})
		o, getErr := alice.Get(ctx, id)
		if !errors.Is(err, context.Canceled) || !errors.Is(err, milepost.ErrWorkerStopped) || getErr != nil ||
			o.Status != milepost.Pending || o.FailedAttempts != 0 {
			t.Errorf("%v %v %v", o, err, getErr)
		}
	})
}
