package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"os"
	"sync"

	milepost "milepost.dev/go"
	"milepost.dev/go/webhook"
)

// call performs one command.
type call func(t *testee, ctx context.Context, c *command) (any, error)

// calls holds the calls by their names.
var calls map[string]call

func init() { // the calls refer to the map through the testee
	calls = map[string]call{
		"connect": connect, "set_token": setToken, "disconnect": disconnect,
		"create": withClient(create), "get": withClient(get), "wait": withClient(wait),
		"result": withClient(result), "cancel": withClient(cancel), "delete": withClient(remove),
		"list": list, "events": events, "watch": watch, "next": next, "close": closeStream,
		"signing_secrets":       withClient(signingSecrets),
		"rotate_signing_secret": withClient(rotateSigningSecret), "deliveries": deliveries,
		"redeliver": withClient(redeliver), "send_test_webhook": withClient(sendTestWebhook),
		"claim": withClient(claim), "start": withClient(start),
		"update_progress": withClient(updateProgress), "complete": withClient(complete),
		"fail": withClient(fail), "release": withClient(release),
		"acknowledge_cancellation": withClient(acknowledge),
		"worker_start":             startWorker, "worker_next": nextWork, "worker_stop": stopWorker,
		"work_progress": workProgress, "work_state": workState, "work_return": workReturn,
		"work_throw": workThrow, "verify_webhook": verifyWebhook, "bench": bench,
	}
}

// withClient returns a call of one client.
func withClient(
	perform func(ctx context.Context, client *milepost.Client, c *command) (any, error),
) call {
	return func(t *testee, ctx context.Context, c *command) (any, error) {
		connection, err := take(t, t.clients, c.Client)
		if err != nil {
			return nil, err
		}
		return perform(ctx, connection.Client, c)
	}
}

func connect(t *testee, _ context.Context, c *command) (any, error) {
	opened := &connection{token: c.Token}
	var options []milepost.Option
	if c.APIKey != "" {
		options = append(options, milepost.WithAPIKey(c.APIKey))
	}
	if c.Token != "" {
		options = append(options, milepost.WithTokenSource(opened.currentToken))
	}
	if c.Insecure {
		options = append(options, milepost.WithInsecure())
	}
	if c.Deadline != nil {
		options = append(options, milepost.WithDeadline(c.Deadline.duration()))
	}
	if c.CAFile != "" || c.CertificateFile != "" {
		config, err := readTLS(c)
		if err != nil {
			return nil, err
		}
		options = append(options, milepost.WithTLS(config))
	}
	client, err := milepost.New(c.Address, options...)
	if err != nil {
		return nil, err
	}
	opened.Client = client
	return object{"client": put(t, t.clients, opened)}, nil
}

func readTLS(c *command) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		authorities, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(authorities) {
			return nil, errors.New("no certificate in " + c.CAFile)
		}
	}
	if c.CertificateFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertificateFile, c.KeyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func setToken(t *testee, _ context.Context, c *command) (any, error) {
	connection, err := take(t, t.clients, c.Client)
	if err != nil {
		return nil, err
	}
	connection.mu.Lock()
	defer connection.mu.Unlock()
	connection.token = c.Token
	return object{}, nil
}

func disconnect(t *testee, _ context.Context, c *command) (any, error) {
	connection, err := take(t, t.clients, c.Client)
	if err != nil {
		return nil, err
	}
	return object{}, connection.Close()
}

// operation returns the answer of a call that returns an operation.
func operation(op *milepost.Operation, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return fromOperation(op), nil
}

func create(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	metadata, err := objectOf(c.Metadata)
	if err != nil {
		return nil, err
	}
	request := milepost.CreateRequest{
		Function: c.Function, Version: c.Version, Metadata: metadata, RequestID: c.RequestID,
		OriginalRequestID: c.OriginalRequestID, CallbackURL: c.CallbackURL,
		CallbackEvents: c.CallbackEvents, TTL: c.TTL.duration(), RetryAfter: c.RetryAfter.duration(),
		MaxAttempts: c.MaxAttempts, QueueTimeout: c.QueueTimeout.duration(),
		RunTimeout: c.RunTimeout.duration(), ScheduleTime: c.ScheduleTime, Priority: c.Priority,
		UniqueKey: c.UniqueKey,
	}
	if c.UniqueKeyPolicy == "REFUSE" {
		request.UniqueKeyPolicy = milepost.RefuseActive
	}
	if policy := c.RetryPolicy; policy != nil {
		request.RetryPolicy = &milepost.RetryPolicy{
			InitialBackoff:    pointerTo(policy.InitialBackoff),
			BackoffMultiplier: policy.BackoffMultiplier, MaxBackoff: pointerTo(policy.MaxBackoff),
		}
	}
	return operation(client.Create(ctx, request))
}

func get(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	return operation(client.Get(ctx, c.OperationID))
}

func wait(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	return operation(client.Wait(ctx, c.OperationID, durationOf(c.Timeout, milepost.Forever)))
}

func result(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	var value any
	timeout := durationOf(c.Timeout, milepost.Forever)
	if err := client.Result(ctx, c.OperationID, timeout, &value); err != nil {
		return nil, err
	}
	if value == nil { // absent, or null
		op, err := client.Get(ctx, c.OperationID)
		if err != nil || !op.HasResult() {
			return object{}, err
		}
	}
	return object{"result": fromValue(value)}, nil
}

func cancel(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	return operation(client.Cancel(ctx, c.OperationID, milepost.CancelRequest{
		Reason: c.Reason, Grace: durationOf(c.Grace, 0), ExpectedRevision: c.ExpectedRevision,
		RequestID: c.RequestID,
	}))
}

func remove(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	return object{}, client.Delete(ctx, c.OperationID, milepost.DeleteRequest{
		ExpectedRevision: c.ExpectedRevision, RequestID: c.RequestID,
	})
}

func claim(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	claimed, err := client.Claim(ctx, milepost.ClaimRequest{
		Functions: c.Functions, MaxOperations: c.MaxOperations, Lease: c.Lease.duration(),
		Worker: c.Worker, Timeout: durationOf(c.Timeout, 0),
	})
	operations := make([]object, len(claimed))
	for i, op := range claimed {
		operations[i] = fromOperation(op)
	}
	return object{"operations": operations}, err
}

func start(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	return operation(client.Start(ctx, c.OperationID, milepost.StartRequest{
		Worker: c.Worker, Progress: c.Progress, ExpectedRevision: c.ExpectedRevision,
		RequestID: c.RequestID,
	}))
}

func updateProgress(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	report, err := c.report()
	if err != nil {
		return nil, err
	}
	return operation(client.UpdateProgress(ctx, c.OperationID, report, c.write()))
}

func complete(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	value, err := valueOf(c.Result)
	if err != nil {
		return nil, err
	}
	return operation(client.Complete(ctx, c.OperationID, value, c.write()))
}

func fail(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	failure := milepost.Failure{Retryable: c.Retryable, RetryDelay: pointerTo(c.RetryDelay)}
	for _, cause := range c.Errors {
		details, err := objectOf(cause.Details)
		if err != nil {
			return nil, err
		}
		failure.Errors = append(failure.Errors, milepost.OperationError{
			Code: cause.Code, Message: cause.Message, Source: cause.Source, Details: details,
		})
	}
	return operation(client.Fail(ctx, c.OperationID, failure, c.write()))
}

func release(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	return operation(client.Release(ctx, c.OperationID, milepost.ReleaseRequest{
		Write: c.write(), Delay: c.Delay.duration(), Reason: c.Reason,
	}))
}

func acknowledge(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	return operation(client.AcknowledgeCancellation(ctx, c.OperationID, c.write()))
}

// stream is an iteration that goes on from command to command.
type stream struct {
	mu     sync.Mutex // an iterator is not for concurrent use
	cancel context.CancelFunc
	next   func() (object, error, bool)
	stop   func()
}

// open keeps the iteration under a handle.
func open[T any](
	t *testee, ctx context.Context, c *command, convert func(T) object,
	iterate func(context.Context, *milepost.Client) iter.Seq2[T, error],
) (any, error) {
	connection, err := take(t, t.clients, c.Client)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	next, stop := iter.Pull2(iterate(ctx, connection.Client))
	return object{"stream": put(t, t.streams, &stream{
		cancel: cancel, stop: stop,
		next: func() (object, error, bool) {
			item, err, ok := next()
			if !ok || err != nil {
				return nil, err, ok
			}
			return convert(item), nil, true
		},
	})}, nil
}

func list(t *testee, ctx context.Context, c *command) (any, error) {
	return open(t, ctx, c, fromOperation,
		func(ctx context.Context, client *milepost.Client) iter.Seq2[*milepost.Operation, error] {
			return client.List(ctx, milepost.ListRequest{
				Statuses: c.Statuses, Function: c.Function, CreatedFrom: c.CreatedFrom,
				CreatedBefore: c.CreatedBefore, Owner: c.Owner, Full: c.Full, PageSize: c.PageSize,
			})
		})
}

func events(t *testee, ctx context.Context, c *command) (any, error) {
	return open(t, ctx, c, fromEvent,
		func(ctx context.Context, client *milepost.Client) iter.Seq2[*milepost.Event, error] {
			return client.Events(ctx, c.OperationID, milepost.EventsRequest{PageSize: c.PageSize})
		})
}

func watch(t *testee, ctx context.Context, c *command) (any, error) {
	return open(t, ctx, c, fromOperation,
		func(ctx context.Context, client *milepost.Client) iter.Seq2[*milepost.Operation, error] {
			return client.Watch(ctx, c.OperationID, c.AfterRevision)
		})
}

func next(t *testee, _ context.Context, c *command) (any, error) {
	stream, err := take(t, t.streams, c.Stream)
	if err != nil {
		return nil, err
	}
	stream.mu.Lock()
	defer stream.mu.Unlock()
	item, err, ok := stream.next()
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return object{"end": true}, nil
	default:
		return object{"item": item}, nil
	}
}

func closeStream(t *testee, _ context.Context, c *command) (any, error) {
	stream, err := take(t, t.streams, c.Stream)
	if err != nil {
		return nil, err
	}
	stream.cancel() // ends a next that waits
	stream.mu.Lock()
	defer stream.mu.Unlock()
	stream.stop()
	return object{}, nil
}

func verifyWebhook(_ *testee, _ context.Context, c *command) (any, error) {
	header := http.Header{}
	for name, value := range c.Headers {
		header.Set(name, value)
	}
	if _, err := webhook.Verify([]byte(c.Body), header, c.Secrets...); err != nil {
		return nil, err
	}
	return object{"content": json.RawMessage(c.Body)}, nil
}
