package milepost

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// Client is a connection to a Milepost service. A program needs one; it reconnects by itself.
type Client struct {
	address  string
	conn     *grpc.ClientConn
	deadline time.Duration
	closed   atomic.Bool
	progress *progressStream

	mu          sync.Mutex
	beforeClose map[*Worker]struct{}
}

// New returns a client of the service at the address, such as "127.0.0.1:7450" or
// "dns:///milepost:7450". It connects with the first call.
func New(address string, options ...Option) (*Client, error) {
	settings := &settings{deadline: DefaultDeadline}
	for _, option := range options {
		option(settings)
	}
	if err := settings.check(); err != nil {
		return nil, err
	}
	if !isTarget(address) {
		return nil, fmt.Errorf("milepost: %q is not an address such as 127.0.0.1:7450", address)
	}
	conn, err := openChannel(address, settings)
	if err != nil {
		return nil, fmt.Errorf("milepost: %w", err)
	}
	client := &Client{
		address: address, conn: conn, deadline: settings.deadline,
		beforeClose: make(map[*Worker]struct{}),
	}
	client.progress = newProgressStream(client)
	return client, nil
}

// Close ends the workers of the client, which release their operations, sends the last reports of
// progress, and closes the connection. Calls in flight are cancelled.
func (c *Client) Close() error {
	for _, worker := range c.workers() {
		worker.leave(ErrClosed)
	}
	c.progress.close()
	if c.closed.Swap(true) {
		return nil
	}
	if err := c.conn.Close(); err != nil {
		return fmt.Errorf("milepost: %w", err)
	}
	return nil
}

// Conn returns the connection, for calls of the generated stubs, such as those of an admin. It adds
// the credential, and nothing else: no deadline, no retries.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// String returns the address, and never the credential.
func (c *Client) String() string { return fmt.Sprintf("milepost.Client(%q)", c.address) }

func (c *Client) workers() []*Worker {
	c.mu.Lock()
	defer c.mu.Unlock()
	workers := make([]*Worker, 0, len(c.beforeClose))
	for worker := range c.beforeClose {
		workers = append(workers, worker)
	}
	return workers
}

func (c *Client) addWorker(worker *Worker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beforeClose[worker] = struct{}{}
}

func (c *Client) removeWorker(worker *Worker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.beforeClose, worker)
}
