// The client of cloud.google.com/go/longrunning.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"cloud.google.com/go/longrunning"
	lroauto "cloud.google.com/go/longrunning/autogen"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	milepostv1 "milepost.dev/go/gen/milepost/v1"
)

// deadline bounds the polls of one future; without it the client gives up a held poll after 10 s.
const deadline = 60 * time.Second

// headers returns an interceptor that adds the same headers to every call.
func headers(pairs ...string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, connection *grpc.ClientConn,
		invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		return invoke(metadata.AppendToOutgoingContext(ctx, pairs...), method, request, reply, connection, options...)
	}
}

func operationsClient(ctx context.Context, address, key, holdS string) (*lroauto.OperationsClient, error) {
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(headers("authorization", "Bearer "+key, "prefer", "wait="+holdS)))
	if err != nil {
		return nil, err
	}
	return lroauto.NewOperationsClient(ctx, option.WithGRPCConn(connection), option.WithoutAuthentication())
}

func futureOf(client *lroauto.OperationsClient, name string) *longrunning.Operation {
	return longrunning.InternalNewOperation(client, &longrunningpb.Operation{Name: name})
}

func show(line map[string]any) {
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

// show writes the state of the last poll, with more fields.
func showState(future *longrunning.Operation, line map[string]any) error {
	var state milepostv1.OperationMetadata
	if err := future.Metadata(&state); err != nil {
		return err
	}
	line["status"], line["progress"] = state.Status.String(), state.GetProgress()
	show(line)
	return nil
}

func wait(ctx context.Context, client *lroauto.OperationsClient, name string, cancel bool) error {
	ctx, stop := context.WithTimeout(ctx, deadline)
	defer stop()
	future := futureOf(client, name)
	var value structpb.Struct
	if err := future.Poll(ctx, &value); err != nil {
		return err
	}
	if !future.Done() {
		if err := showState(future, map[string]any{}); err != nil {
			return err
		}
	}
	if cancel {
		if err := future.Cancel(ctx); err != nil {
			return err
		}
		show(map[string]any{"cancel": true})
	}
	if err := future.Wait(ctx, &value); err != nil {
		return err
	}
	return showState(future, map[string]any{"value": value.AsMap()})
}

func list(ctx context.Context, client *lroauto.OperationsClient) error {
	names := []string{}
	found := client.ListOperations(ctx, &longrunningpb.ListOperationsRequest{Name: "operations", Filter: "done=true"})
	for {
		operation, err := found.Next()
		if errors.Is(err, iterator.Done) {
			show(map[string]any{"names": names})
			return nil
		}
		if err != nil {
			return err
		}
		names = append(names, operation.Name)
	}
}

func run(ctx context.Context, client *lroauto.OperationsClient, verb, name string) error {
	switch verb {
	case "delete":
		err := futureOf(client, name).Delete(ctx)
		if err == nil {
			show(map[string]any{"deleted": true})
		}
		return err
	case "list":
		return list(ctx, client)
	default:
		for _, each := range strings.Split(name, ",") { // one after the other
			if err := wait(ctx, client, each, verb == "cancel"); err != nil {
				return err
			}
		}
		return nil
	}
}

func main() {
	ctx := context.Background()
	client, err := operationsClient(ctx, os.Args[1], os.Getenv("MILEPOST_API_KEY"), os.Getenv("HOLD_S"))
	if err != nil {
		panic(err)
	}
	if err := run(ctx, client, os.Args[2], append(os.Args, "")[3]); err != nil {
		line := map[string]any{"error": fmt.Sprintf("%T", err), "message": err.Error()}
		if known, ok := status.FromError(err); ok {
			line["code"], line["message"] = known.Code(), known.Message()
		}
		show(line)
	}
}
