// Package testservice starts a Milepost on SQLite for tests; see tests/conformance/README.md.
package testservice

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Service is a running service that the test drives.
type Service struct {
	t      *testing.T
	input  io.Writer
	output *bufio.Scanner
	// Address is that of its gRPC port.
	Address string
	// CAFile holds the authority of its certificate, with --tls.
	CAFile string
}

// Start starts a service that ends with the test. It needs the environment of the repository, or
// another Python in MILEPOST_TEST_PYTHON.
func Start(t *testing.T, options ...string) *Service {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "../../../..")
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
	s := &Service{t: t, input: input, output: bufio.NewScanner(output)}
	s.output.Buffer(nil, 64<<20)
	var addresses struct {
		Address string `json:"address"`
		CAFile  string `json:"ca_file"`
	}
	s.read(&addresses)
	s.Address, s.CAFile = addresses.Address, addresses.CAFile
	return s
}

func (s *Service) read(into any) {
	s.t.Helper()
	if !s.output.Scan() {
		s.t.Fatalf("the service does not answer: %v", s.output.Err())
	}
	if err := json.Unmarshal(s.output.Bytes(), into); err != nil {
		s.t.Fatal(err)
	}
}

// Do performs one command and returns its result.
func (s *Service) Do(command map[string]any) map[string]any {
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

// Key returns a new API key of a unique subject, granted all functions.
func (s *Service) Key(subject string, roles ...string) string {
	s.t.Helper()
	result := s.Do(map[string]any{
		"do": "key", "subject": subject + "-" + strings.ToLower(rand.Text()), "roles": roles,
		"functions": []string{"*"},
	})
	return result["key"].(string)
}
