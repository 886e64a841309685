package milepost_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	milepost "milepost.dev/go"
)

// service is a Milepost on SQLite that the test drives; see tests/conformance/README.md.
type service struct {
	t       *testing.T
	input   io.Writer
	output  *bufio.Scanner
	address string
}

// startService starts a service that ends with the test.
func startService(t *testing.T, options ...string) *service {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	python := os.Getenv("MILEPOST_TEST_PYTHON")
	if python == "" {
		python = filepath.Join(root, ".venv/bin/python")
	}
	command := exec.Command(python, append([]string{"-m", "tests.conformance.service"}, options...)...)
	command.Dir, command.Stderr = root, os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = input.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("the service: %v", err)
		}
	})
	s := &service{t: t, input: input, output: bufio.NewScanner(output)}
	s.output.Buffer(nil, 64<<20)
	var addresses struct {
		Address string `json:"address"`
	}
	s.read(&addresses)
	s.address = addresses.Address
	return s
}

func (s *service) read(into any) {
	s.t.Helper()
	if !s.output.Scan() {
		s.t.Fatalf("the service does not answer: %v", s.output.Err())
	}
	if err := json.Unmarshal(s.output.Bytes(), into); err != nil {
		s.t.Fatal(err)
	}
}

// do performs one command and returns its result.
func (s *service) do(command map[string]any) map[string]any {
	s.t.Helper()
	if err := json.NewEncoder(s.input).Encode(command); err != nil {
		s.t.Fatal(err)
	}
	var result map[string]any
	s.read(&result)
	if problem := result["error"]; problem != nil {
		s.t.Fatalf("%v: %v", command, problem)
	}
	return result
}

func (s *service) key(subject string, roles ...string) string {
	s.t.Helper()
	result := s.do(map[string]any{
		"do": "key", "subject": subject + "-" + strings.ToLower(rand.Text()), "roles": roles,
		"functions": []string{"*"},
	})
	return result["key"].(string)
}

// client returns a client with a key of its own, which is closed with the test.
func (s *service) client(roles ...string) *milepost.Client {
	s.t.Helper()
	return newClient(s.t, s.address, milepost.WithAPIKey(s.key("go", roles...)))
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
