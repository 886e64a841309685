// Package milepost is the Go client of Milepost, a service that tracks long-running operations.
//
// A caller creates an operation and waits for its result:
//
//	client, err := milepost.New("127.0.0.1:7450", milepost.WithAPIKey(key))
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	operation, err := client.Create(ctx, milepost.CreateRequest{Function: "video.transcode"})
//	if err != nil {
//		return err
//	}
//	var result struct{ Frames int }
//	err = client.Result(ctx, operation.ID, 10*time.Minute, &result)
//
// A [Worker] claims operations and calls a [Handler] for each.
//
// Every call has a deadline, is tried again where that is safe, and returns an error that
// [errors.As] takes apart: see [APIError] and the types that wrap it.
//
// All methods are safe for concurrent use. An iterator belongs to the goroutine that ranges over it.
package milepost
