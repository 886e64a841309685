package milepost_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	milepost "milepost.dev/go"
)

// TestWorkSurvivesRestartsOfTheService keeps leases and ends over an outage.
func TestWorkSurvivesRestartsOfTheService(t *testing.T) {
	s := startService(t)
	alice, client := s.client("CALLER"), s.client("WORKER")
	function := uniqueFunction()
	goOn := make(chan struct{})
	var started sync.WaitGroup
	started.Add(5)
	runWorker(t, client, map[string]milepost.Handler{
		function: func(ctx context.Context, work *milepost.Work) (any, error) {
			started.Done()
			_ = work.Progress(0.5, "half")
			select {
			case <-goOn:
				return "good", nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		},
	}, milepost.WorkerOptions{Logger: quiet, Lease: 5 * time.Second})
	var ids []string
	for range 5 {
		ids = append(ids, create(t, alice, function).ID)
	}
	started.Wait()
	s.Do(map[string]any{"do": "kill"})
	close(goOn)
	time.Sleep(2 * time.Second)
	s.Do(map[string]any{"do": "start"})
	for _, id := range ids {
		if o := wait(t, alice, id); o.Result != "good" || o.Attempt != 1 {
			t.Errorf("%s %v, attempt %d", o.Status, o.Errors, o.Attempt)
		}
	}
}

// TestBigWorker holds 500 operations at default limits, and loses none.
func TestBigWorker(t *testing.T) {
	const count = 500
	s := startService(t, "--limited", "--set", "active_operations_max=1000", "--set", "creates_per_minute=1000")
	alice, client := s.client("CALLER"), s.client("WORKER")
	function := uniqueFunction()
	goOn := make(chan struct{})
	var inHand atomic.Int32
	runWorker(t, client, map[string]milepost.Handler{
		function: func(ctx context.Context, work *milepost.Work) (any, error) {
			inHand.Add(1)
			for i := 1; ; i++ {
				if err := work.Progress(min(1, float64(i)/100), "at work"); err != nil {
					return nil, err
				}
				select {
				case <-goOn:
					return work.Operation().Attempt, nil
				case <-ctx.Done():
					return nil, context.Cause(ctx)
				case <-time.After(5 * time.Second):
				}
			}
		},
	}, milepost.WorkerOptions{Logger: quiet, Concurrency: count, Lease: 10 * time.Second})
	var ids []string
	for range count {
		ids = append(ids, create(t, alice, function).ID)
	}
	eventually(t, "all operations in hand", func() bool { return inHand.Load() >= count })
	time.Sleep(25 * time.Second) // two leases and a half
	close(goOn)
	for _, id := range ids {
		o := wait(t, alice, id)
		if o.Status != milepost.Completed || o.Attempt != 1 {
			t.Errorf("%s: %s in attempt %d, %v", id, o.Status, o.Attempt, o.Errors)
		}
	}
}

// killed is the variable that makes the test binary a worker, which kills itself after a checkpoint.
const killed = "MILEPOST_TEST_KILLED_WORKER"

// TestMain runs the tests, or the worker that is killed.
func TestMain(m *testing.M) {
	if function := os.Getenv(killed); function != "" {
		workUntilKilled(function)
		return
	}
	os.Exit(m.Run())
}

func workUntilKilled(function string) {
	client, err := milepost.New(os.Getenv("MILEPOST_ADDRESS"), milepost.WithAPIKey(os.Getenv("MILEPOST_API_KEY")))
	if err != nil {
		panic(err)
	}
	worker, err := milepost.NewWorker(client, map[string]milepost.Handler{
		function: func(ctx context.Context, work *milepost.Work) (any, error) {
			report := milepost.Report{Progress: new(0.4), Checkpoint: map[string]any{"frame": 400}}
			if err := work.Report(report); err != nil {
				return nil, err
			}
			if err := work.Flush(ctx); err != nil {
				return nil, err
			}
			return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
		},
	}, milepost.WorkerOptions{Lease: 5 * time.Second})
	if err != nil {
		panic(err)
	}
	panic(worker.Run(context.Background()))
}

// TestKilledWorkerLeavesItsCheckpoint hands the work to another worker, where it was stored last.
func TestKilledWorkerLeavesItsCheckpoint(t *testing.T) {
	s := startService(t)
	alice, client := s.client("CALLER"), s.client("WORKER")
	function := uniqueFunction()
	o := create(t, alice, function)
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), killed+"="+function, "MILEPOST_ADDRESS="+s.Address,
		"MILEPOST_API_KEY="+s.Key("victim", "WORKER"))
	victim.Stderr = os.Stderr
	var exit *exec.ExitError
	if err := victim.Run(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the worker was not killed: %v", err)
	}
	runWorker(t, client, map[string]milepost.Handler{
		function: func(_ context.Context, work *milepost.Work) (any, error) {
			var checkpoint struct{ Frame int }
			if err := work.DecodeCheckpoint(&checkpoint); err != nil {
				return nil, err
			}
			return checkpoint, nil
		},
	}, milepost.WorkerOptions{Logger: quiet})
	if o = wait(t, alice, o.ID); fmt.Sprint(o.Result) != "map[Frame:400]" || o.Attempt != 2 || o.FailedAttempts != 1 {
		t.Errorf("%v %v, attempt %d", o.Result, o.Errors, o.Attempt)
	}
}
