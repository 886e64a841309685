package milepost

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "milepost.dev/go/gen/milepost/v1"
)

// TestEveryDocumentedReasonHasAType compares the table of clients/README.md with the types.
func TestEveryDocumentedReasonHasAType(t *testing.T) {
	contract, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| [A-Z_]+ \\|").FindAllSubmatch(contract, -1)
	if len(rows) < 26 {
		t.Fatalf("the table has only %d reasons", len(rows))
	}
	for _, row := range rows {
		if byReason[string(row[1])] == nil {
			t.Errorf("%s has no type", row[1])
		}
	}
}

// TestErrorsMatchEveryLevelOfTheTree looks at each reason.
func TestErrorsMatchEveryLevelOfTheTree(t *testing.T) {
	for reason, wrap := range byReason {
		err := wrap(&APIError{Reason: reason, Message: "m"})
		name := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", err), "*milepost."), "Error")
		if reason != "INTERNAL" && !strings.EqualFold(name, strings.ReplaceAll(reason, "_", "")) {
			t.Errorf("%s is a %T", reason, err)
		}
		if facts, ok := as[*APIError](fmt.Errorf("wrapped: %w", err)); !ok || facts.Reason != reason {
			t.Errorf("%s does not lead to its facts", reason)
		}
		if err.Error() != "milepost: "+reason+": m" {
			t.Errorf("%s: %s", reason, err)
		}
	}
	expired := byReason["OPERATION_EXPIRED"](&APIError{})
	if !is[*OperationNotFoundError](expired) || !is[*NotFoundError](expired) || is[*ConflictError](expired) {
		t.Error("an expired operation is not found")
	}
	cancelled := typed(&APIError{Reason: "ILLEGAL_TRANSITION", Metadata: map[string]string{"status": "CANCELLED"}})
	if !is[*CancelledError](cancelled) || !is[*IllegalTransitionError](cancelled) {
		t.Errorf("got %T", cancelled)
	}
	if unknown := typed(&APIError{Reason: "NEW_REASON", Code: codes.Aborted}); !is[*ConflictError](unknown) {
		t.Errorf("an unknown reason is a %T", unknown)
	}
}

// TestRefusalsKeepTheirDetails rebuilds an error from its status.
func TestRefusalsKeepTheirDetails(t *testing.T) {
	refusal, err := status.New(codes.ResourceExhausted, "slow down").WithDetails(
		&errdetails.ErrorInfo{Reason: "RATE_LIMITED", Domain: "milepost", Metadata: map[string]string{"limit": "5"}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "f", Description: "d"}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	facts, _ := as[*APIError](rebuild(refusal.Err()))
	if !is[*RateLimitedError](rebuild(refusal.Err())) || facts.RetryAfter != 3*time.Second ||
		facts.Metadata["limit"] != "5" || facts.Violations[0] != (Violation{"f", "d"}) {
		t.Errorf("got %+v", facts)
	}
	foreign, err := status.New(codes.Unavailable, "m").WithDetails(
		&errdetails.ErrorInfo{Reason: "RATE_LIMITED", Domain: "another"})
	if err != nil {
		t.Fatal(err)
	}
	if facts, _ := as[*APIError](rebuild(foreign.Err())); facts.Reason != "" {
		t.Errorf("the reason of another domain: %q", facts.Reason)
	}
}

// TestBrokenCallsAreTriedAgain tells refusals of the service from calls that were broken.
func TestBrokenCallsAreTriedAgain(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		isBroken := code == codes.Unavailable || code == codes.Internal || code == codes.Unknown ||
			code == codes.Canceled || code == codes.DeadlineExceeded
		if isPassing(typed(&APIError{Code: code})) != isBroken {
			t.Errorf("without a reason: %s", code)
		}
		refused := isPassing(typed(&APIError{Code: code, Reason: "NEW_REASON"}))
		if refused != (code == codes.Unavailable) {
			t.Errorf("with a reason: %s", code)
		}
	}
}

// TestValuesThatJSONCannotHoldAreRefused and names the problem.
func TestValuesThatJSONCannotHoldAreRefused(t *testing.T) {
	deep := any("x")
	for range 40 {
		deep = []any{deep}
	}
	for name, value := range map[string]any{
		"integer": 1<<53 + 1, "negative": -(1<<53 + 1), "uint64": uint64(1 << 60), "text": "a\xff",
		"inner text": struct{ S string }{"a\xff"}, "key": map[string]any{"\xff": 1}, "deep": deep,
		"channel": make(chan int), "function": func() {}, "type": &anypb.Any{TypeUrl: "x/\xff"},
	} {
		if _, err := toAny(value); !is[*ValueError](err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, value := range map[string]any{
		"bound": 1 << 53, "replacement": struct{ S string }{"a\ufffd"}, "escape": struct{ S string }{`\ufffd`},
		"large": 1e300, "nil": nil,
	} {
		if _, err := toAny(value); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestUnknownValuesOfANewerService are shown as unknown, and not as terminal.
func TestUnknownValuesOfANewerService(t *testing.T) {
	o := fromOperation(&pb.Operation{
		Status: 99, NextStep: 99, Result: &anypb.Any{TypeUrl: "type.googleapis.com/new.Message", Value: []byte("x")},
	})
	if o.Status != Unknown || o.Status.IsTerminal() || o.NextStep != NoStep {
		t.Errorf("got %+v", o)
	}
	if packed, ok := o.Result.(*anypb.Any); !ok || string(packed.GetValue()) != "x" {
		t.Errorf("got %v", o.Result)
	}
}

// TestLoopbackAddresses are those that need no encryption.
func TestLoopbackAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:7450": true, "localhost:1": true, "LocalHost:1": true, "[::1]:1": true, "::1": true, "unix:/tmp/x": true,
		"dns:///localhost:1": true, "dns:127.9.9.9:1": true, "127.0.0.1.example.com:1": false,
		"localhost.example.com:1": false, "10.0.0.1:1": false, "example.com": false, "[2001:db8::1]:1": false,
		"dns:///example.com:1": false,
	} {
		if isLoopback(address) != want {
			t.Errorf("%s", address)
		}
	}
}

// TestAddressesAreChecked before gRPC looks for a machine of that name.
func TestAddressesAreChecked(t *testing.T) {
	for _, address := range []string{"", "http://127.0.0.1:1", "https://example.com"} {
		if _, err := New(address); err == nil || !strings.Contains(err.Error(), "such as 127.0.0.1:7450") {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// TestOptionsAreChecked and never show the key.
func TestOptionsAreChecked(t *testing.T) {
	for _, options := range [][]Option{
		{WithAPIKey("")}, {WithAPIKey("mk_secret\n")}, {WithAPIKey("mk secret")}, {WithAPIKey("mk_ü")},
		{WithTLS(nil), WithDeadline(0)},
	} {
		if _, err := New("127.0.0.1:1", options...); err == nil || strings.Contains(err.Error(), "mk_") {
			t.Errorf("got %v", err)
		}
	}
	client, err := New("127.0.0.1:1", WithAPIKey("mk_secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if strings.Contains(fmt.Sprintf(verb, client), "mk_secret") {
			t.Errorf("%s shows the key", verb)
		}
	}
}

// TestPausesGrowAndHonourTheService adds the pause that the service asks for.
func TestPausesGrowAndHonourTheService(t *testing.T) {
	pauses := newBackoff(time.Second)
	asked := typed(&APIError{RetryAfter: time.Minute})
	for _, bound := range []time.Duration{50, 100, 200, 400, 800, 1000, 1000} {
		bound *= time.Millisecond
		if pause := pauses.pause(asked) - time.Minute; pause < bound/2 || pause > bound {
			t.Errorf("%v, bound %v", pause, bound)
		}
	}
	if pause := pauses.pause(errors.New("x")); pause > time.Second {
		t.Errorf("%v", pause)
	}
}
