// Command testee performs the commands of the conformance suite with the public client. It reads
// one JSON command a line and writes one JSON result a line: see tests/conformance/README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	milepost "milepost.dev/go"
)

// maxLineBytes bounds one command.
const maxLineBytes = 64 << 20

func main() {
	newTestee(os.Stdout).serve(os.Stdin)
}

func newTestee(output io.Writer) *testee {
	return &testee{
		output: json.NewEncoder(output), clients: map[string]*connection{},
		streams: map[string]*stream{}, workers: map[string]*worker{}, works: map[string]*work{},
	}
}

// testee holds what commands refer to by handles.
type testee struct {
	writing sync.Mutex
	output  *json.Encoder

	mu      sync.Mutex
	handles int
	clients map[string]*connection
	streams map[string]*stream
	workers map[string]*worker
	works   map[string]*work
}

// connection is a client, and the token that its source returns.
type connection struct {
	*milepost.Client
	mu    sync.Mutex
	token string
}

func (c *connection) currentToken(context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.token, nil
}

// serve performs commands concurrently until the input ends.
func (t *testee) serve(input io.Reader) {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	lines := bufio.NewScanner(input)
	lines.Buffer(nil, maxLineBytes)
	for lines.Scan() {
		c := &command{}
		if err := json.Unmarshal(lines.Bytes(), c); err != nil {
			t.write(nil, nil, err)
			continue
		}
		go func() {
			result, err := t.perform(c)
			t.write(c.ID, result, err)
		}()
	}
}

func (t *testee) write(id json.RawMessage, result any, err error) {
	answer := map[string]any{"id": id}
	switch {
	case err == errUnsupported:
		answer["unsupported"] = true
	case err != nil:
		answer["error"] = fromError(err)
	default:
		answer["ok"] = result
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	if err := t.output.Encode(answer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (t *testee) perform(c *command) (any, error) {
	perform, ok := calls[c.Call]
	if !ok {
		return nil, errUnsupported
	}
	return perform(t, context.Background(), c)
}

// put keeps the value under a new handle.
func put[T any](t *testee, all map[string]T, value T) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handles++
	handle := fmt.Sprint(t.handles)
	all[handle] = value
	return handle
}

// take returns the value of the handle.
func take[T any](t *testee, all map[string]T, handle string) (T, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	value, ok := all[handle]
	if !ok {
		return value, fmt.Errorf("no such handle: %q", handle)
	}
	return value, nil
}
