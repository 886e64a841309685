package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"milepost.dev/go/internal/testservice"
)

// driver sends commands to a testee, one after the other.
type driver struct {
	t      *testing.T
	input  *json.Encoder
	output *bufio.Scanner
	called map[string]bool
}

func newDriver(t *testing.T) *driver {
	t.Helper()
	inputReader, input := io.Pipe()
	outputReader, output := io.Pipe()
	testee := newTestee(output)
	go testee.serve(inputReader)
	t.Cleanup(func() { _ = input.Close() })
	lines := bufio.NewScanner(outputReader)
	lines.Buffer(nil, maxLineBytes)
	return &driver{t: t, input: json.NewEncoder(input), output: lines, called: map[string]bool{}}
}

// answer returns the answer to one command.
func (d *driver) answer(call string, arguments object) map[string]any {
	d.t.Helper()
	d.called[call] = true
	line := maps.Clone(arguments)
	line["id"], line["call"] = 7, call
	if err := d.input.Encode(line); err != nil {
		d.t.Fatal(err)
	}
	if !d.output.Scan() {
		d.t.Fatal(d.output.Err())
	}
	var answer map[string]any
	if err := json.Unmarshal(d.output.Bytes(), &answer); err != nil || answer["id"] != 7.0 {
		d.t.Fatal(d.output.Text(), err)
	}
	return answer
}

// ok returns the good result of one command.
func (d *driver) ok(call string, arguments object) map[string]any {
	d.t.Helper()
	answer := d.answer(call, arguments)
	result, ok := answer["ok"].(map[string]any)
	if !ok {
		d.t.Fatalf("%s %v: %v", call, arguments, answer)
	}
	return result
}

// class returns the class of the error that one command meets.
func (d *driver) class(call string, arguments object) any {
	d.t.Helper()
	answer := d.answer(call, arguments)
	found, ok := answer["error"].(map[string]any)
	if !ok {
		d.t.Fatalf("%s %v: %v", call, arguments, answer)
	}
	return found["class"]
}

func (d *driver) equal(found, want any) {
	d.t.Helper()
	if !reflect.DeepEqual(found, want) {
		d.t.Errorf("got %v, want %v", found, want)
	}
}

// TestEveryCall performs every call at least once.
func TestEveryCall(t *testing.T) {
	s := testservice.Start(t)
	d := newDriver(t)
	alice := d.ok("connect", object{"address": s.Address, "api_key": s.Key("a", "CALLER"), "deadline": 5})["client"]
	worker := d.ok("connect", object{"address": s.Address, "token": "mk_wrong"})["client"]
	d.equal(d.class("claim", object{"client": worker, "functions": []string{"f"}}), "Unauthenticated")
	d.ok("set_token", object{"client": worker, "token": s.Key("w", "WORKER")})

	created := func(function string) any {
		return d.ok("create", object{"client": alice, "function": function, "metadata": object{"n": 1}})["id"]
	}
	byHand(d, alice, worker, created)
	byWorker(d, alice, worker, created)
	receivers(d, alice)
	d.equal(d.ok("bench", object{
		"address": s.Address, "api_key": s.Key("b", "WORKER"), "loop": "stream_stub",
		"seconds": 0.2, "concurrency": 1,
	})["calls"], 2.0)
	webhooks(d)
	d.ok("disconnect", object{"client": worker})
	d.equal(d.class("claim", object{"client": worker, "functions": []string{"f"}}), "Error")
	d.equal(d.answer("no_such_call", object{})["unsupported"], true)
	delete(d.called, "no_such_call")
	d.equal(slices.Sorted(maps.Keys(d.called)), slices.Sorted(maps.Keys(calls)))
}

func byHand(d *driver, alice, worker any, created func(string) any) {
	d.t.Helper()
	id := created("hand")
	d.equal(d.ok("get", object{"client": alice, "operation_id": id})["status"], "PENDING")
	for _, call := range []string{"list", "events", "watch"} {
		stream := d.ok(call, object{"client": alice, "operation_id": id, "function": "hand"})["stream"]
		if item := d.ok("next", object{"stream": stream})["item"]; item == nil {
			d.t.Errorf("%s has no item", call)
		}
		if call != "watch" {
			d.equal(d.ok("next", object{"stream": stream})["end"], true)
		}
		d.ok("close", object{"stream": stream})
	}
	d.ok("start", object{"client": worker, "operation_id": id, "progress": 0.1})
	report := object{"client": worker, "operation_id": id, "progress": 0.5, "checkpoint": object{"at": 3}}
	d.ok("update_progress", report)
	d.equal(d.class("acknowledge_cancellation", object{"client": worker, "operation_id": id}), "CancellationNotRequested")
	d.ok("release", object{"client": worker, "operation_id": id})
	claimed := d.ok("claim", object{"client": worker, "functions": []string{"hand"}})["operations"].([]any)[0].(map[string]any)
	d.equal(claimed["checkpoint"], map[string]any{"at": 3.0})
	d.equal(d.class("complete", object{
		"client": worker, "operation_id": id, "result": object{"$integer": "9007199254740993"},
	}), "Error")
	d.equal(d.answer("complete", object{
		"client": worker, "operation_id": id, "result": object{"$utf16": []int{55296}},
	})["unsupported"], true)
	d.ok("complete", object{"client": worker, "operation_id": id, "result": nil, "attempt": 2})
	d.equal(d.ok("result", object{"client": alice, "operation_id": id}), map[string]any{"result": nil})
	d.ok("delete", object{"client": alice, "operation_id": id})
	d.equal(d.class("get", object{"client": alice, "operation_id": id}), "OperationDeleted")

	id = created("hand")
	d.ok("fail", object{"client": worker, "operation_id": id, "errors": []object{{"code": "E", "message": "m"}}})
	d.equal(d.class("result", object{"client": alice, "operation_id": id}), "OperationFailed")
	d.equal(d.class("cancel", object{"client": alice, "operation_id": id}), "IllegalTransition")
}

func byWorker(d *driver, alice, worker any, created func(string) any) {
	d.t.Helper()
	running := d.ok("worker_start", object{"client": worker, "functions": []string{"run"}, "grace": 0})["worker"]
	id := created("run")
	work := d.ok("worker_next", object{"worker": running})["work"]
	d.ok("work_progress", object{"work": work, "progress": 0.5})
	d.equal(d.ok("work_state", object{"work": work}), map[string]any{"stopped": nil, "cancel_requested": false})
	d.ok("work_return", object{"work": work, "result": object{"$any": object{"type_url": "t/x", "value": "AQI="}}})
	end := d.ok("wait", object{"client": alice, "operation_id": id, "timeout": 30})
	d.equal(end["result"], map[string]any{"$any": map[string]any{"type_url": "t/x", "value": "AQI="}})

	id = created("run")
	work = d.ok("worker_next", object{"worker": running})["work"]
	d.ok("work_throw", object{"work": work, "kind": "permanent", "code": "C", "message": "m"})
	d.equal(d.ok("wait", object{"client": alice, "operation_id": id})["status"], "FAILED")

	id = created("run")
	work = d.ok("worker_next", object{"worker": running})["work"]
	d.ok("cancel", object{"client": alice, "operation_id": id})
	for end := time.Now().Add(30 * time.Second); d.ok("work_state", object{"work": work})["stopped"] != "Cancelled"; {
		if time.Now().After(end) {
			d.t.Fatal("the work was not stopped")
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.ok("worker_stop", object{"worker": running})
}

func receivers(d *driver, alice any) {
	d.t.Helper()
	d.equal(d.class("signing_secrets", object{"client": alice}), "SigningSecretNotFound")
	d.ok("rotate_signing_secret", object{"client": alice})
	d.equal(d.class("send_test_webhook", object{
		"client": alice, "callback_url": "https://localhost/",
	}), "InvalidRequest")
	stream := d.ok("deliveries", object{"client": alice})["stream"]
	d.equal(d.ok("next", object{"stream": stream})["end"], true)
	d.equal(d.class("redeliver", object{
		"client": alice, "delivery_id": "msg_0123456789abcdef0123456789abcdef",
	}), "DeliveryNotFound")
}

func webhooks(d *driver) {
	d.t.Helper()
	secret := "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	signer, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		d.t.Fatal(err)
	}
	body := `{"type":"operation.completed","timestamp":"2026-11-26T10:00:00Z","data":{}}`
	signature, err := signer.Sign("whd_1", time.Now(), []byte(body))
	if err != nil {
		d.t.Fatal(err)
	}
	webhook := object{"body": body, "secrets": []string{secret}, "headers": object{
		"webhook-id": "whd_1", "webhook-timestamp": fmt.Sprint(time.Now().Unix()), "webhook-signature": signature,
	}}
	content := d.ok("verify_webhook", webhook)["content"].(map[string]any)
	d.equal(content["type"], "operation.completed")
	webhook["body"] = strings.ToUpper(body)
	d.equal(d.class("verify_webhook", webhook), "NotVerified")
}
