package milepost_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	milepost "milepost.dev/go"
)

// TestCallers groups what one service serves, with its limits lifted.
func TestCallers(t *testing.T) {
	s := startService(t)
	alice, worker := s.client("CALLER"), s.client("WORKER")
	ctx := t.Context()

	t.Run("CreateSetsEveryField", func(t *testing.T) {
		schedule := time.Now().Add(time.Hour).Truncate(time.Microsecond).UTC()
		request := milepost.CreateRequest{
			Function: "video.transcode", Version: "2", Metadata: map[string]any{"a": []any{1.5, nil, "ü"}},
			RequestID: "go-1", OriginalRequestID: "web-7", TTL: time.Hour, RetryAfter: 2 * time.Second,
			MaxAttempts: 5, QueueTimeout: time.Minute, RunTimeout: 2 * time.Minute, ScheduleTime: schedule,
			Priority: new(0), UniqueKey: "key-1", UniqueKeyPolicy: milepost.RefuseActive,
			RetryPolicy: &milepost.RetryPolicy{
				InitialBackoff: new(time.Duration(0)), BackoffMultiplier: 3, MaxBackoff: new(time.Minute),
			},
		}
		o, err := alice.Create(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		found := fmt.Sprint(o.Function, o.Version, o.Metadata, o.OriginalRequestID, o.TTL, o.RetryAfter,
			o.MaxAttempts, o.QueueTimeout, o.RunTimeout, o.ScheduleTime, o.Priority, o.UniqueKey,
			*o.RetryPolicy.InitialBackoff, o.RetryPolicy.BackoffMultiplier, *o.RetryPolicy.MaxBackoff)
		want := fmt.Sprint("video.transcode", "2", request.Metadata, "web-7", time.Hour, 2*time.Second,
			5, time.Minute, 2*time.Minute, schedule, 0, "key-1", time.Duration(0), 3.0, time.Minute)
		if found != want || o.Status != milepost.Pending || o.NextStep != milepost.ClaimStep {
			t.Errorf("got  %s\nwant %s", found, want)
		}
		again, err := alice.Create(ctx, request)
		if err != nil || again.ID != o.ID || !again.Replayed || o.Replayed {
			t.Errorf("not replayed: %v %v", again, err)
		}
		_, err = alice.Create(ctx, milepost.CreateRequest{
			Function: "video.transcode", UniqueKey: "key-1", UniqueKeyPolicy: milepost.RefuseActive,
		})
		var taken *milepost.UniqueKeyTakenError
		if !errors.As(err, &taken) || taken.OperationID() != o.ID {
			t.Errorf("got %v", err)
		}
		joined, err := alice.Create(ctx, milepost.CreateRequest{Function: "video.transcode", UniqueKey: "key-1"})
		if err != nil || joined.ID != o.ID || !joined.Joined {
			t.Errorf("not joined: %v %v", joined, err)
		}
	})

	t.Run("ListIteratesOverAllPages", func(t *testing.T) {
		function := uniqueFunction()
		var created []string
		for range 7 {
			created = append(created, create(t, alice, function).ID)
		}
		slices.Reverse(created)
		var listed []string
		list := alice.List(ctx, milepost.ListRequest{
			Function: function, PageSize: 3, Statuses: []milepost.Status{milepost.Pending},
		})
		for operation, err := range list {
			if err != nil {
				t.Fatal(err)
			}
			listed = append(listed, operation.ID)
		}
		if !slices.Equal(listed, created) {
			t.Errorf("got %v, want %v", listed, created)
		}
		for operation := range list {
			if operation.ID != created[0] {
				t.Errorf("a second iteration begins with %s", operation.ID)
			}
			break
		}
	})

	t.Run("ErrorsAreTypedByTheirReason", func(t *testing.T) {
		_, err := alice.Get(ctx, "op_"+strings.Repeat("0", 24))
		var unknown *milepost.OperationNotFoundError
		var missing *milepost.NotFoundError
		var facts *milepost.APIError
		if !errors.As(err, &unknown) || !errors.As(err, &missing) || !errors.As(err, &facts) ||
			facts.Code != codes.NotFound || facts.Reason != "OPERATION_NOT_FOUND" {
			t.Errorf("got %#v", err)
		}
		_, err = alice.Create(ctx, milepost.CreateRequest{Function: " ", Version: strings.Repeat("v", 300)})
		var invalid *milepost.InvalidRequestError
		if !errors.As(err, &invalid) || len(invalid.Violations) != 2 {
			t.Errorf("got %#v", err)
		}
		_, err = alice.Complete(ctx, create(t, alice, uniqueFunction()).ID, nil, milepost.Write{})
		var illegal *milepost.IllegalTransitionError
		if !errors.As(err, &illegal) || illegal.Status() != milepost.Pending ||
			!slices.Equal(illegal.Allowed(), []milepost.Status{milepost.Processing}) {
			t.Errorf("got %#v", err)
		}
		stranger := newClient(t, s.Address, milepost.WithAPIKey("mk_wrong"))
		_, err = stranger.Get(ctx, "op_"+strings.Repeat("0", 24))
		var denied *milepost.UnauthenticatedError
		if !errors.As(err, &denied) {
			t.Errorf("got %#v", err)
		}
	})

	t.Run("ResultsKeepTheirValues", func(t *testing.T) {
		for _, value := range []any{
			nil, true, "", "😀 \u0000\ufffd", 0.1, float64(1 << 53), []any{}, map[string]any{"": nil},
			strings.Repeat("x", 1_000_000),
		} {
			o := create(t, alice, uniqueFunction())
			if _, err := alice.Start(ctx, o.ID, milepost.StartRequest{}); err != nil {
				t.Fatal(err)
			}
			if _, err := alice.Complete(ctx, o.ID, value, milepost.Write{}); err != nil {
				t.Fatalf("%.50v: %v", value, err)
			}
			var result any = "untouched"
			err := alice.Result(ctx, o.ID, time.Minute, &result)
			if err != nil || fmt.Sprintf("%#v", result) != fmt.Sprintf("%#v", value) {
				t.Errorf("%.50v: got %.50v, %v", value, result, err)
			}
		}
	})

	t.Run("ResultSaysWhyThereIsNone", func(t *testing.T) {
		o := create(t, alice, uniqueFunction())
		var running *milepost.StillRunningError
		err := alice.Result(ctx, o.ID, 50*time.Millisecond, nil)
		if !errors.As(err, &running) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if _, err := alice.Cancel(ctx, o.ID, milepost.CancelRequest{Reason: "no need"}); err != nil {
			t.Fatal(err)
		}
		var cancelled *milepost.OperationCancelledError
		if err := alice.Result(ctx, o.ID, time.Minute, nil); !errors.As(err, &cancelled) ||
			cancelled.Operation.CancelReason != "no need" {
			t.Errorf("got %v", err)
		}
		var names []string
		for event, err := range alice.Events(ctx, o.ID, milepost.EventsRequest{PageSize: 1}) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, event.Transition)
		}
		if !slices.Equal(names, []string{"create", "cancel"}) {
			t.Errorf("events: %v", names)
		}
		if err := alice.Delete(ctx, o.ID, milepost.DeleteRequest{}); err != nil {
			t.Fatal(err)
		}
		var deleted *milepost.OperationDeletedError
		if _, err := alice.Get(ctx, o.ID); !errors.As(err, &deleted) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("WorkersByHand", func(t *testing.T) {
		function := uniqueFunction()
		o := create(t, alice, function)
		claimed, err := worker.Claim(ctx, milepost.ClaimRequest{Functions: []string{function}, Timeout: time.Second})
		if err != nil || len(claimed) != 1 || claimed[0].ID != o.ID {
			t.Fatal(claimed, err)
		}
		write := milepost.Write{Attempt: claimed[0].Attempt}
		report := milepost.Report{Progress: new(0.25), Message: "a quarter", Checkpoint: []any{"at", 7.0}}
		if _, err := worker.UpdateProgress(ctx, o.ID, report, write); err != nil {
			t.Fatal(err)
		}
		_, err = worker.AcknowledgeCancellation(ctx, o.ID, write)
		var notRequested *milepost.CancellationNotRequestedError
		if !errors.As(err, &notRequested) {
			t.Errorf("got %v", err)
		}
		released, err := worker.Release(ctx, o.ID, milepost.ReleaseRequest{Write: write, Reason: "later"})
		if err != nil || released.Status != milepost.Pending || released.FailedAttempts != 0 {
			t.Fatal(released, err)
		}
		var stale *milepost.StaleAttemptError
		if claimed, err = worker.Claim(ctx, milepost.ClaimRequest{Functions: []string{function}}); err != nil {
			t.Fatal(err)
		}
		if _, err := worker.Complete(ctx, o.ID, nil, write); !errors.As(err, &stale) {
			t.Errorf("got %v", err)
		}
		var checkpoint []any
		if err := claimed[0].DecodeCheckpoint(&checkpoint); err != nil || fmt.Sprint(checkpoint) != "[at 7]" {
			t.Errorf("got %v, %v", checkpoint, err)
		}
		failed, err := worker.Fail(ctx, o.ID, milepost.Failure{
			Errors: []milepost.OperationError{{Code: "E", Message: "m", Details: map[string]any{"n": 1.0}}},
		}, milepost.Write{Attempt: claimed[0].Attempt})
		if err != nil || failed.Status != milepost.Failed || failed.Errors[0].Details["n"] != 1.0 {
			t.Errorf("got %v, %v", failed, err)
		}
	})

	t.Run("ContextsEndCallsAndWaits", func(t *testing.T) {
		o := create(t, alice, uniqueFunction())
		cause := errors.New("the user has left")
		waiting, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
		if _, err := alice.Wait(waiting, o.ID, milepost.Forever); !errors.Is(err, cause) {
			t.Errorf("wait: %v", err)
		}
		watching, stop := context.WithTimeout(ctx, 50*time.Millisecond)
		defer stop()
		var last error
		for _, err := range alice.Watch(watching, o.ID, 0) {
			last = err
		}
		if !errors.Is(last, context.DeadlineExceeded) {
			t.Errorf("watch: %v", last)
		}
	})
}

// TestUnreachableService returns a typed error within the deadline of the call.
func TestUnreachableService(t *testing.T) {
	client := newClient(t, "127.0.0.1:1", milepost.WithAPIKey("key"), milepost.WithDeadline(300*time.Millisecond))
	begin := time.Now()
	_, err := client.Get(t.Context(), "op_1")
	var away *milepost.UnavailableError
	if !errors.As(err, &away) || time.Since(begin) > 5*time.Second {
		t.Errorf("got %v after %v", err, time.Since(begin))
	}
	for _, err := range client.Watch(t.Context(), "op_1", 0) {
		if !errors.As(err, &away) {
			t.Errorf("watch: got %v", err)
		}
	}
}

// TestWatchResumes misses no change over a restart of the service.
func TestWatchResumes(t *testing.T) {
	s := startService(t)
	alice, worker := s.client("CALLER"), s.client("WORKER")
	function := uniqueFunction()
	o := create(t, alice, function)
	var seen []milepost.Status
	var revisions []int64
	for operation, err := range alice.Watch(t.Context(), o.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, operation.Status)
		revisions = append(revisions, operation.Revision)
		switch operation.Status {
		case milepost.Pending:
			s.Do(map[string]any{"do": "kill"})
			s.Do(map[string]any{"do": "start"})
			if _, err := worker.Claim(t.Context(), milepost.ClaimRequest{Functions: []string{function}}); err != nil {
				t.Fatal(err)
			}
		case milepost.Processing:
			s.Do(map[string]any{"do": "stop"})
			s.Do(map[string]any{"do": "start"})
			if _, err := worker.Complete(t.Context(), o.ID, "end", milepost.Write{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !slices.Equal(seen, []milepost.Status{milepost.Pending, milepost.Processing, milepost.Completed}) {
		t.Errorf("seen: %v %v", seen, revisions)
	}
}
