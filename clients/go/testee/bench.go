package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	milepost "milepost.dev/go"
	pb "milepost.dev/go/gen/milepost/v1"
)

const (
	benchID       = "op_0123456789abcdef01234567"
	benchDeadline = 10 * time.Second
	benchInterval = 100 * time.Millisecond // between two reports of one operation
)

// bench runs one loop, and returns how often it went round, in which time and CPU time.
func bench(_ *testee, ctx context.Context, c *command) (any, error) {
	loops := map[string]func(context.Context, *command) (any, error){
		"unary": benchUnary, "unary_stub": benchUnaryStub,
		"stream": benchStream, "stream_stub": benchStreamStub,
	}
	loop, ok := loops[c.Loop]
	if !ok {
		return nil, errUnsupported
	}
	return loop(ctx, c)
}

// measure runs so many goroutines, and returns the sum of their rounds and what they took.
func measure(concurrency int, rounds func(number int) (int, error)) (any, error) {
	begun, cpu := time.Now(), cpuTime()
	counts, errs := make([]int, concurrency), make([]error, concurrency)
	var group sync.WaitGroup
	for number := range concurrency {
		group.Go(func() { counts[number], errs[number] = rounds(number) })
	}
	group.Wait()
	total := 0
	for _, count := range counts {
		total += count
	}
	return object{
		"calls": total, "seconds": time.Since(begun).Seconds(),
		"cpu_seconds": (cpuTime() - cpu).Seconds(),
	}, errors.Join(errs...)
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func repeat(c *command, call func() error) (int, error) {
	end, count := time.Now().Add(c.Seconds.duration()), 0
	for time.Now().Before(end) {
		if err := call(); err != nil {
			return count, err
		}
		count++
	}
	return count, nil
}

// paced reports once in each interval, each operation at a moment of its own.
func paced(c *command, number int, report func(progress float64) error) (int, error) {
	time.Sleep(benchInterval * time.Duration(number) / time.Duration(c.Concurrency))
	rounds := int(c.Seconds.duration() / benchInterval)
	ticks := time.NewTicker(benchInterval)
	defer ticks.Stop()
	for count := range rounds {
		if err := report(float64(count) / float64(rounds)); err != nil {
			return count, err
		}
		<-ticks.C
	}
	return rounds, nil
}

func benchUnary(ctx context.Context, c *command) (any, error) {
	client, err := milepost.New(c.Address, milepost.WithAPIKey(c.APIKey))
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	return measure(c.Concurrency, func(int) (int, error) {
		return repeat(c, func() error {
			_, err := client.Get(ctx, benchID)
			return err
		})
	})
}

// stubConnection returns a connection without the client, and a context with the credential.
func stubConnection(ctx context.Context, c *command) (*grpc.ClientConn, context.Context, error) {
	credentials := grpc.WithTransportCredentials(insecure.NewCredentials())
	connection, err := grpc.NewClient(c.Address, credentials)
	return connection, metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.APIKey), err
}

func benchUnaryStub(ctx context.Context, c *command) (any, error) {
	connection, ctx, err := stubConnection(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }()
	stub := pb.NewOperationServiceClient(connection)
	return measure(c.Concurrency, func(int) (int, error) {
		return repeat(c, func() error {
			limited, cancel := context.WithTimeout(ctx, benchDeadline)
			defer cancel()
			_, err := stub.GetOperation(limited, &pb.GetOperationRequest{OperationId: benchID})
			return err
		})
	})
}

func benchStream(ctx context.Context, c *command) (any, error) {
	client, err := milepost.New(c.Address, milepost.WithAPIKey(c.APIKey))
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	begun := make(chan *milepost.Work, c.Concurrency)
	finished := make(chan struct{})
	handler := func(_ context.Context, work *milepost.Work) (any, error) {
		begun <- work
		<-finished
		return nil, nil
	}
	worker, err := milepost.NewWorker(client, map[string]milepost.Handler{c.Functions[0]: handler},
		milepost.WorkerOptions{Concurrency: c.Concurrency})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	works := make([]*milepost.Work, c.Concurrency)
	for i := range works {
		works[i] = <-begun
	}
	measured, err := measure(c.Concurrency, func(number int) (int, error) {
		return paced(c, number, func(progress float64) error {
			return works[number].Report(milepost.Report{Progress: &progress})
		})
	})
	close(finished)
	stop()
	return measured, errors.Join(err, <-ended)
}

func benchStreamStub(ctx context.Context, c *command) (any, error) {
	connection, ctx, err := stubConnection(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }()
	stream, err := pb.NewWorkerServiceClient(connection).StreamProgress(ctx)
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	var writing sync.Mutex
	measured, err := measure(c.Concurrency, func(number int) (int, error) {
		return paced(c, number, func(progress float64) error {
			writing.Lock()
			defer writing.Unlock()
			return stream.Send(&pb.StreamProgressRequest{
				OperationId: fmt.Sprintf("op_%024x", number), Attempt: new(int32(1)), Progress: &progress,
			})
		})
	})
	err = errors.Join(err, stream.CloseSend())
	if end := <-ended; !errors.Is(end, io.EOF) {
		err = errors.Join(err, end)
	}
	return measured, err
}
