package main

import (
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	milepost "milepost.dev/go"
	"milepost.dev/go/webhook"
)

// object is a JSON object that leaves out what is absent.
type object map[string]any

func (o object) text(name, value string) {
	if value != "" {
		o[name] = value
	}
}

func (o object) time(name string, value time.Time) {
	if !value.IsZero() {
		o[name] = value.Format(time.RFC3339Nano)
	}
}

func (o object) duration(name string, value time.Duration) {
	if value != 0 {
		o[name] = value.Seconds()
	}
}

// fromOperation returns the fields of an operation by their names in the .proto files.
func fromOperation(op *milepost.Operation) object {
	o := object{
		"id": op.ID, "function": op.Function, "owner": op.Owner, "status": op.Status,
		"revision": op.Revision, "attempt": op.Attempt, "max_attempts": op.MaxAttempts,
		"failed_attempts": op.FailedAttempts, "priority": op.Priority,
		"replayed": op.Replayed, "joined": op.Joined,
	}
	for name, value := range map[string]string{
		"version": op.Version, "original_request_id": op.OriginalRequestID,
		"callback_url": op.CallbackURL, "progress_message": op.ProgressMessage, "worker": op.Worker,
		"unique_key": op.UniqueKey, "cancel_reason": op.CancelReason, "next_step": string(op.NextStep),
		"traceparent": op.Traceparent,
	} {
		o.text(name, value)
	}
	for name, value := range map[string]time.Duration{
		"ttl": op.TTL, "retry_after": op.RetryAfter, "queue_timeout": op.QueueTimeout,
		"run_timeout": op.RunTimeout,
	} {
		o.duration(name, value)
	}
	for name, value := range map[string]time.Time{
		"create_time": op.CreateTime, "schedule_time": op.ScheduleTime,
		"next_attempt_time": op.NextAttemptTime, "start_time": op.StartTime,
		"progress_time": op.ProgressTime, "complete_time": op.CompleteTime,
		"cancel_time": op.CancelTime, "cancel_request_time": op.CancelRequestTime,
		"cancel_delivered_time": op.CancelDeliveredTime, "cancel_expire_time": op.CancelExpireTime,
		"lease_expire_time": op.LeaseExpireTime, "queue_expire_time": op.QueueExpireTime,
		"run_expire_time": op.RunExpireTime, "expire_time": op.ExpireTime,
		"next_step_deadline": op.NextStepDeadline,
	} {
		o.time(name, value)
	}
	o.addValues(op)
	return o
}

// addValues adds what has a value of its own when it is absent.
func (o object) addValues(op *milepost.Operation) {
	if op.Progress != nil {
		o["progress"] = *op.Progress
	}
	if len(op.Metadata) > 0 {
		o["metadata"] = op.Metadata
	}
	if len(op.Errors) > 0 {
		o["errors"] = fromErrors(op.Errors)
	}
	if op.HasResult() {
		o["result"] = fromValue(op.Result)
	}
	if op.HasCheckpoint() {
		var checkpoint any
		if err := op.DecodeCheckpoint(&checkpoint); err == nil {
			o["checkpoint"] = fromValue(checkpoint)
		}
	}
	policy := object{}
	if op.RetryPolicy.InitialBackoff != nil {
		policy["initial_backoff"] = op.RetryPolicy.InitialBackoff.Seconds()
	}
	if op.RetryPolicy.BackoffMultiplier != 0 {
		policy["backoff_multiplier"] = op.RetryPolicy.BackoffMultiplier
	}
	if op.RetryPolicy.MaxBackoff != nil {
		policy["max_backoff"] = op.RetryPolicy.MaxBackoff.Seconds()
	}
	if len(policy) > 0 {
		o["retry_policy"] = policy
	}
}

func fromErrors(causes []milepost.OperationError) []object {
	found := make([]object, len(causes))
	for i, cause := range causes {
		found[i] = object{"code": cause.Code, "message": cause.Message}
		found[i].text("source", cause.Source)
		if len(cause.Details) > 0 {
			found[i]["details"] = cause.Details
		}
	}
	return found
}

func fromEvent(event *milepost.Event) object {
	o := object{
		"revision": event.Revision, "type": event.Type, "transition": event.Transition,
		"actor": event.Actor, "attempt": event.Attempt,
	}
	o.time("time", event.Time)
	o.text("worker", event.Worker)
	o.text("reason", event.Reason)
	if len(event.Errors) > 0 {
		o["errors"] = fromErrors(event.Errors)
	}
	return o
}

// fromValue returns the value as JSON.
func fromValue(value any) any {
	if packed, ok := value.(*anypb.Any); ok {
		return object{"$any": object{
			"type_url": packed.GetTypeUrl(), "value": base64.StdEncoding.EncodeToString(packed.GetValue()),
		}}
	}
	return value
}

func fromError(err error) object {
	o := object{
		"class": className(err), "reason": "", "code": nil, "message": err.Error(),
		"metadata": object{}, "violations": []object{}, "retry_after": nil,
	}
	facts, ok := errors.AsType[*milepost.APIError](err)
	if !ok {
		return o
	}
	o["reason"], o["code"], o["message"] = facts.Reason, codeName(facts.Code), facts.Message
	if facts.Metadata != nil {
		o["metadata"] = facts.Metadata
	}
	violations := make([]object, len(facts.Violations))
	for i, violation := range facts.Violations {
		violations[i] = object{"field": violation.Field, "problem": violation.Description}
	}
	o["violations"] = violations
	if facts.RetryAfter > 0 {
		o["retry_after"] = facts.RetryAfter.Seconds()
	}
	return o
}

// initialisms are written like words in the names of the Python client.
var initialisms = strings.NewReplacer("API", "Api", "IDs", "Ids", "ID", "Id")

// className returns the name of the class of the error in the Python client.
func className(err error) string {
	if errors.Is(err, milepost.ErrWorkerStopped) {
		return "WorkerStopped"
	}
	if errors.Is(err, webhook.ErrNotVerified) {
		return "NotVerified"
	}
	for ; err != nil; err = errors.Unwrap(err) {
		kind := reflect.TypeOf(err)
		if kind.Kind() != reflect.Pointer || kind.Elem().PkgPath() != "milepost.dev/go" {
			continue
		}
		switch name := kind.Elem().Name(); name {
		case "ValueError":
			return "Error"
		case "APIError":
			return "MilepostError"
		case "InternalError":
			return name
		default:
			return initialisms.Replace(strings.TrimSuffix(name, "Error"))
		}
	}
	return "Error"
}

// codeName returns the name of the code as the specification of gRPC writes it.
func codeName(code codes.Code) string {
	if code == codes.OK {
		return "OK"
	}
	var name strings.Builder
	for i, letter := range code.String() {
		if unicode.IsUpper(letter) && i > 0 {
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToUpper(letter))
	}
	if name.String() == "CANCELED" {
		return "CANCELLED"
	}
	return name.String()
}
