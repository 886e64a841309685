package milepost_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	milepost "milepost.dev/go"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// ends are handlers, and how the operation ends that they work on.
var ends = map[string]struct {
	handler milepost.Handler
	want    string
}{
	"value": {returns(struct {
		N int `json:"n"`
	}{7}), "COMPLETED map[n:7]"},
	"nothing": {returns(nil), "COMPLETED <nil>"},
	"message": {returns(wrapperspb.Int32(7)), "COMPLETED 7"},
	"error":   {fails(errors.New("broken")), "FAILED Error: broken"},
	"typed":   {fails(&os.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}), "FAILED PathError: open x: no such file or directory"},
	"permanent": {fails(&milepost.PermanentFailure{
		Code: "CODEC", Message: "m", Err: errors.New("cause"),
	}), "FAILED CODEC: m"},
	"wrapped":                {fails(fmt.Errorf("while reading: %w", &milepost.PermanentFailure{Code: "C", Err: errors.New("x")})), "FAILED C: while reading: x"},
	"panic":                  {func(context.Context, *milepost.Work) (any, error) { panic("no") }, "FAILED Panic: panic: no"},
	"goexit":                 {func(context.Context, *milepost.Work) (any, error) { runtime.Goexit(); return nil, nil }, "FAILED Error: the handler called runtime.Goexit"},
	"bad error":              {fails(badError{}), "FAILED BadError: milepost_test.badError without a readable text"},
	"panic nil":              {func(context.Context, *milepost.Work) (any, error) { panic(nil) }, "FAILED Panic: panic: panic called with nil argument"},
	"panic with a bad error": {func(context.Context, *milepost.Work) (any, error) { panic(badError{}) }, "FAILED Panic: panic: "},
	"goexit of a panic":      {func(context.Context, *milepost.Work) (any, error) { panic(goexit{}) }, "FAILED Error: the handler called runtime.Goexit"},
	"goexit of an error":     {fails(goexit{}), "FAILED InvalidError: The error was refused: the handler called runtime.Goexit"},
	"goexit of a result":     {returns(goexit{}), "FAILED UnstorableResult: the result cannot be stored: the handler called runtime.Goexit"},
	"panic of a result":      {returns(badJSON{}), "FAILED UnstorableResult: the result cannot be stored: panic: in MarshalJSON"},
	"own cancel":             {cancelsItself, "FAILED Error: context canceled"},
	"nil of a type":          {fails((*milepost.PermanentFailure)(nil)), "FAILED InvalidError: The error was refused: panic: "},
	"bad unwrap":             {fails(badUnwrap{errors.New("x")}), "FAILED InvalidError: The error was refused: panic: in Unwrap"},
	"panic of details": {fails(&milepost.PermanentFailure{
		Code: "C", Message: "m", Details: map[string]any{"x": badJSON{}},
	}), "FAILED InvalidError: The error was refused: panic: in MarshalJSON"},
	"not JSON":    {returns(make(chan int)), "FAILED UnstorableResult"},
	"NaN":         {returns(math.NaN()), "FAILED UnstorableResult"},
	"cycle":       {returns(cycle()), "FAILED UnstorableResult"},
	"too large":   {returns(strings.Repeat("x", 1<<20+100)), "FAILED UnstorableResult"},
	"far too big": {returns(strings.Repeat("x", 5<<20)), "FAILED UnstorableResult"},
	"too big int": {returns(int64(1<<53 + 1)), "FAILED UnstorableResult"},
	"bad details": {fails(&milepost.PermanentFailure{
		Code: "C", Message: "m", Details: map[string]any{"x": math.Inf(1)},
	}), "FAILED InvalidError: The error was refused"},
	"panic in chain": {fails(badChain{}), "FAILED BadChain: milepost_test.badChain"},
}

type badError struct{}

func (badError) Error() string { panic("in Error") }

// badUnwrap is an error whose cause cannot be read.
type badUnwrap struct{ error }

func (badUnwrap) Unwrap() error { panic("in Unwrap") }

// goexit is an error, and a value, that ends the goroutine which reads it.
type goexit struct{}

func (goexit) Error() string { runtime.Goexit(); return "" }

func (goexit) MarshalJSON() ([]byte, error) { runtime.Goexit(); return nil, nil }

type badJSON struct{}

func (badJSON) MarshalJSON() ([]byte, error) { panic("in MarshalJSON") }

func cancelsItself(ctx context.Context, _ *milepost.Work) (any, error) {
	own, cancel := context.WithCancel(ctx)
	cancel()
	return nil, own.Err()
}

type badChain struct{}

func (badChain) Error() string { panic("in Error") }

func (badChain) Is(error) bool { panic("in Is") }

func (badChain) As(any) bool { return false }

func returns(value any) milepost.Handler {
	return func(context.Context, *milepost.Work) (any, error) { return value, nil }
}

func fails(err error) milepost.Handler {
	return func(context.Context, *milepost.Work) (any, error) { return nil, err }
}

func cycle() any {
	list := []any{nil}
	list[0] = list
	return list
}

// TestWorkers groups what one service serves, with its limits lifted.
func TestWorkers(t *testing.T) {
	s := startService(t)
	alice, client := s.client("CALLER"), s.client("WORKER")
	ctx := t.Context()

	t.Run("EveryHandlerEndsItsOperationOnce", func(t *testing.T) {
		handlers := map[string]milepost.Handler{}
		ids := map[string]string{}
		prefix := uniqueFunction()
		for name, each := range ends {
			function := prefix + "." + strings.ReplaceAll(name, " ", "-")
			handlers[function] = each.handler
			o, err := alice.Create(ctx, milepost.CreateRequest{Function: function, MaxAttempts: 1})
			if err != nil {
				t.Fatal(err)
			}
			ids[name] = o.ID
		}
		runWorker(t, client, handlers, milepost.WorkerOptions{Logger: quiet})
		for name, each := range ends {
			o := wait(t, alice, ids[name])
			found := fmt.Sprintf("%s %v", o.Status, o.Result)
			if packed, ok := o.Result.(*anypb.Any); ok {
				number := &wrapperspb.Int32Value{}
				if err := o.DecodeResult(number); err != nil {
					t.Error(err)
				}
				found = fmt.Sprintf("%s %d", o.Status, number.GetValue())
				_ = packed
			}
			for _, cause := range o.Errors {
				found = fmt.Sprintf("%s %s: %s", o.Status, cause.Code, cause.Message)
			}
			if !strings.HasPrefix(found, each.want) || o.Attempt != 1 || len(o.Errors) > 1 {
				t.Errorf("%s: got %.200s, want %s; attempt %d", name, found, each.want, o.Attempt)
			}
		}
	})

	t.Run("ErrorsAreRetriedWithTheCheckpoint", func(t *testing.T) {
		function := uniqueFunction()
		var attempts []string
		runWorker(t, client, map[string]milepost.Handler{
			function: func(_ context.Context, work *milepost.Work) (any, error) {
				var step int
				if err := work.DecodeCheckpoint(&step); work.HasCheckpoint() && err != nil {
					return nil, err
				}
				attempts = append(attempts, fmt.Sprint(work.Operation().Attempt, step))
				if step == 2 {
					return step, nil
				}
				if err := work.SaveCheckpoint(step + 1); err != nil {
					return nil, err
				}
				return nil, &milepost.RetryLater{Delay: time.Millisecond, Err: errors.New("not yet")}
			},
		}, milepost.WorkerOptions{Logger: quiet})
		o := wait(t, alice, create(t, alice, function).ID)
		if o.Result != 2.0 || o.FailedAttempts != 2 || !slices.Equal(attempts, []string{"1 0", "2 1", "3 2"}) {
			t.Errorf("%v, attempts %v", o.Result, attempts)
		}
	})

	t.Run("ProgressIsStoredAndRefusedReportsAreReturned", func(t *testing.T) {
		function := uniqueFunction()
		runWorker(t, client, map[string]milepost.Handler{
			function: func(ctx context.Context, work *milepost.Work) (any, error) {
				for i := range 100 {
					if err := work.Progress(float64(i)/200, fmt.Sprint("step ", i)); err != nil {
						return nil, err
					}
				}
				if err := work.Flush(ctx); err != nil {
					return nil, err
				}
				now, err := alice.Get(ctx, work.Operation().ID)
				if err != nil || now.ProgressMessage != "step 99" {
					return nil, fmt.Errorf("%v %w", now, err)
				}
				if err := work.Progress(0.1, ""); err != nil {
					return nil, err
				}
				var decrease *milepost.ProgressDecreaseError
				if err := work.Flush(ctx); !errors.As(err, &decrease) {
					return nil, fmt.Errorf("flush: %w", err)
				}
				if err := work.Progress(0.6, ""); !errors.As(err, &decrease) {
					return nil, fmt.Errorf("progress: %w", err)
				}
				return "good", work.Progress(0.7, "the last")
			},
		}, milepost.WorkerOptions{Logger: quiet})
		o := wait(t, alice, create(t, alice, function).ID)
		if o.Result != "good" || o.ProgressMessage != "the last" {
			t.Errorf("%v %v %v", o.Result, o.Errors, o.ProgressMessage)
		}
	})

	t.Run("ContextEndsWithItsCause", func(t *testing.T) {
		function := uniqueFunction()
		causes := make(chan error, 1)
		started := make(chan struct{}, 1)
		runWorker(t, client, map[string]milepost.Handler{
			function: func(ctx context.Context, work *milepost.Work) (any, error) {
				started <- struct{}{}
				<-ctx.Done()
				causes <- context.Cause(ctx)
				return nil, ctx.Err()
			},
		}, milepost.WorkerOptions{Logger: quiet, Concurrency: 1})
		o := create(t, alice, function)
		<-started
		if _, err := alice.Cancel(ctx, o.ID, milepost.CancelRequest{}); err != nil {
			t.Fatal(err)
		}
		var cancelled *milepost.CancelledError
		if cause := <-causes; !errors.As(cause, &cancelled) {
			t.Errorf("cancelled: %v", cause)
		}
		o, err := alice.Create(ctx, milepost.CreateRequest{Function: function, RunTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		<-started
		var stale *milepost.StaleAttemptError
		if cause := <-causes; !errors.As(cause, &stale) {
			t.Errorf("run timeout: %v", cause)
		}
		if _, err := alice.Cancel(ctx, o.ID, milepost.CancelRequest{}); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("RequestedCancelIsAcknowledged", func(t *testing.T) {
		function := uniqueFunction()
		started := make(chan struct{}, 1)
		runWorker(t, client, map[string]milepost.Handler{
			function: func(ctx context.Context, work *milepost.Work) (any, error) {
				started <- struct{}{}
				select {
				case <-work.CancelRequested():
					return nil, milepost.ErrCancelAcknowledged
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			},
		}, milepost.WorkerOptions{Logger: quiet})
		o := create(t, alice, function)
		<-started
		o, err := alice.Cancel(ctx, o.ID, milepost.CancelRequest{Grace: 30 * time.Second})
		if err != nil || o.Status != milepost.Processing || o.CancelRequestTime.IsZero() {
			t.Fatal(o, err)
		}
		if o = wait(t, alice, o.ID); o.Status != milepost.Cancelled || o.CancelDeliveredTime.IsZero() {
			t.Errorf("%s, delivered %v", o.Status, o.CancelDeliveredTime)
		}
	})

	t.Run("StoppedWorkerReleasesWhatItCannotFinish", func(t *testing.T) {
		function := uniqueFunction()
		started := make(chan struct{}, 3)
		causes := make(chan error, 3)
		var stubborn atomic.Int32
		stop := runWorker(t, client, map[string]milepost.Handler{
			function: func(ctx context.Context, _ *milepost.Work) (any, error) {
				started <- struct{}{}
				<-ctx.Done()
				causes <- context.Cause(ctx)
				switch stubborn.Add(1) {
				case 1: // goes on all the same
					time.Sleep(10 * time.Second)
				case 2: // finishes
					return "finished", nil
				}
				return nil, ctx.Err()
			},
		}, milepost.WorkerOptions{Logger: quiet, Grace: 100 * time.Millisecond})
		ids := []string{}
		for range 3 {
			ids = append(ids, create(t, alice, function).ID)
		}
		for range 3 {
			<-started
		}
		begin := time.Now()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 6*time.Second {
			t.Errorf("the stop took %v", took)
		}
		counts := map[milepost.Status]int{}
		for _, id := range ids {
			if cause := <-causes; !errors.Is(cause, milepost.ErrWorkerStopped) {
				t.Errorf("cause %v", cause)
			}
			o, err := alice.Get(ctx, id)
			if err != nil || o.FailedAttempts != 0 {
				t.Fatal(o, err)
			}
			counts[o.Status]++
		}
		if counts[milepost.Pending] != 2 || counts[milepost.Completed] != 1 {
			t.Errorf("%v", counts)
		}
	})

	t.Run("ClosedClientReleasesTheWorkOfItsWorkers", func(t *testing.T) {
		own, err := milepost.New(s.Address, milepost.WithAPIKey(s.Key("go", "WORKER")))
		if err != nil {
			t.Fatal(err)
		}
		function := uniqueFunction()
		started := make(chan struct{}, 1)
		worker, err := milepost.NewWorker(own, map[string]milepost.Handler{
			function: func(ctx context.Context, _ *milepost.Work) (any, error) {
				started <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			},
		}, milepost.WorkerOptions{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- worker.Run(ctx) }()
		o := create(t, alice, function)
		<-started
		if err := own.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, milepost.ErrClosed) {
			t.Errorf("run: %v", err)
		}
		if o, err = alice.Get(ctx, o.ID); err != nil || o.Status != milepost.Pending {
			t.Errorf("%v %v", o, err)
		}
		if _, err := own.Get(ctx, o.ID); !errors.Is(err, milepost.ErrClosed) {
			t.Errorf("a closed client: %v", err)
		}
	})

	t.Run("RefusedClaimsEndTheWorker", func(t *testing.T) {
		worker, err := milepost.NewWorker(alice, map[string]milepost.Handler{"f": returns(nil)}, milepost.WorkerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var denied *milepost.PermissionDeniedError
		if err := worker.Run(ctx); !errors.As(err, &denied) {
			t.Errorf("got %v", err)
		}
	})
}
