package milepost_test

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	milepost "milepost.dev/go"
	"milepost.dev/go/internal/testservice"
)

// service is a running service with clients of its own.
type service struct {
	*testservice.Service
	t *testing.T
}

// startService starts a service that ends with the test.
func startService(t *testing.T, options ...string) *service {
	t.Helper()
	return &service{testservice.Start(t, options...), t}
}

// client returns a client with a key of its own, which is closed with the test.
func (s *service) client(roles ...string) *milepost.Client {
	s.t.Helper()
	return newClient(s.t, s.Address, milepost.WithAPIKey(s.Key("go", roles...)))
}

func newClient(t *testing.T, address string, options ...milepost.Option) *milepost.Client {
	t.Helper()
	client, err := milepost.New(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// uniqueFunction returns the name of a function that no other test works on.
func uniqueFunction() string { return "test." + strings.ToLower(rand.Text()) }

func create(t *testing.T, client *milepost.Client, function string) *milepost.Operation {
	t.Helper()
	operation, err := client.Create(t.Context(), milepost.CreateRequest{Function: function})
	if err != nil {
		t.Fatal(err)
	}
	return operation
}

// runWorker runs a worker until the returned function is called, or the test ends.
func runWorker(
	t *testing.T, client *milepost.Client, handlers map[string]milepost.Handler,
	options milepost.WorkerOptions,
) (stop func() error) {
	t.Helper()
	worker, err := milepost.NewWorker(client, handlers, options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	isStopped := false
	stop = func() error {
		if isStopped {
			return nil
		}
		isStopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

// wait returns the operation at its end.
func wait(t *testing.T, client *milepost.Client, id string) *milepost.Operation {
	t.Helper()
	operation, err := client.Wait(t.Context(), id, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if !operation.Status.IsTerminal() {
		t.Fatalf("the operation is %s", operation.Status)
	}
	return operation
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
