package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"time"
	"unicode/utf16"

	"google.golang.org/protobuf/types/known/anypb"

	milepost "milepost.dev/go"
)

// errUnsupported answers a command that this language has no value or call for.
var errUnsupported = errors.New("unsupported")

// seconds is a duration on the wire.
type seconds float64

func (s seconds) duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// durationOf returns the duration, or the default if it is absent.
func durationOf(s *seconds, absent time.Duration) time.Duration {
	if s == nil {
		return absent
	}
	return s.duration()
}

// pointerTo returns the duration, or nil if it is absent.
func pointerTo(s *seconds) *time.Duration {
	if s == nil {
		return nil
	}
	return new(s.duration())
}

// command is one line of the input: the arguments of all calls.
type command struct {
	ID     json.RawMessage `json:"id"`
	Call   string          `json:"call"`
	Client string          `json:"client"`
	Stream string          `json:"stream"`
	Worker string          `json:"worker"`
	Work   string          `json:"work"`

	Address         string   `json:"address"`
	APIKey          string   `json:"api_key"`
	Token           string   `json:"token"`
	CAFile          string   `json:"ca_file"`
	CertificateFile string   `json:"certificate_file"`
	KeyFile         string   `json:"key_file"`
	Insecure        bool     `json:"insecure"`
	Deadline        *seconds `json:"deadline"`

	OperationID       string          `json:"operation_id"`
	Function          string          `json:"function"`
	Functions         []string        `json:"functions"`
	Version           string          `json:"version"`
	Metadata          json.RawMessage `json:"metadata"`
	RequestID         string          `json:"request_id"`
	OriginalRequestID string          `json:"original_request_id"`
	CallbackURL       string          `json:"callback_url"`
	CallbackEvents    []string        `json:"callback_events"`
	TTL               seconds         `json:"ttl"`
	RetryAfter        seconds         `json:"retry_after"`
	MaxAttempts       int             `json:"max_attempts"`
	RetryPolicy       *struct {
		InitialBackoff    *seconds `json:"initial_backoff"`
		BackoffMultiplier float64  `json:"backoff_multiplier"`
		MaxBackoff        *seconds `json:"max_backoff"`
	} `json:"retry_policy"`
	QueueTimeout    seconds   `json:"queue_timeout"`
	RunTimeout      seconds   `json:"run_timeout"`
	ScheduleTime    time.Time `json:"schedule_time"`
	Priority        *int      `json:"priority"`
	UniqueKey       string    `json:"unique_key"`
	UniqueKeyPolicy string    `json:"unique_key_policy"`

	Timeout          *seconds          `json:"timeout"`
	Grace            *seconds          `json:"grace"`
	Reason           string            `json:"reason"`
	ExpectedRevision int64             `json:"expected_revision"`
	Statuses         []milepost.Status `json:"statuses"`
	CreatedFrom      time.Time         `json:"created_from"`
	CreatedBefore    time.Time         `json:"created_before"`
	Owner            string            `json:"owner"`
	Full             bool              `json:"full"`
	PageSize         int               `json:"page_size"`
	AfterRevision    int64             `json:"after_revision"`

	MaxOperations int             `json:"max_operations"`
	Lease         seconds         `json:"lease"`
	Attempt       int             `json:"attempt"`
	Progress      *float64        `json:"progress"`
	Message       string          `json:"message"`
	Checkpoint    json.RawMessage `json:"checkpoint"`
	Result        json.RawMessage `json:"result"`
	Errors        []struct {
		Code    string          `json:"code"`
		Message string          `json:"message"`
		Source  string          `json:"source"`
		Details json.RawMessage `json:"details"`
	} `json:"errors"`
	Retryable  bool     `json:"retryable"`
	RetryDelay *seconds `json:"retry_delay"`
	Delay      seconds  `json:"delay"`

	Concurrency int    `json:"concurrency"`
	Name        string `json:"name"`
	Kind        string `json:"kind"`
	Code        string `json:"code"`

	DeliveryID string `json:"delivery_id"`

	Loop    string  `json:"loop"`
	Seconds seconds `json:"seconds"`

	Body    string            `json:"body"`
	Headers map[string]string `json:"headers"`
	Secrets []string          `json:"secrets"`
}

func (c *command) write() milepost.Write {
	return milepost.Write{
		Attempt: c.Attempt, ExpectedRevision: c.ExpectedRevision, RequestID: c.RequestID,
	}
}

func (c *command) report() (milepost.Report, error) {
	checkpoint, err := valueOf(c.Checkpoint)
	return milepost.Report{Progress: c.Progress, Message: c.Message, Checkpoint: checkpoint}, err
}

// objectOf returns the JSON object, or nil if it is absent.
func objectOf(raw json.RawMessage) (map[string]any, error) {
	if raw == nil || string(raw) == "null" {
		return nil, nil
	}
	value, err := valueOf(raw)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errUnsupported
	}
	return object, nil
}

// valueOf returns the value of an argument, with those that JSON cannot hold; nil if it is absent.
func valueOf(raw json.RawMessage) (any, error) {
	switch string(raw) {
	case "":
		return nil, nil
	case "null":
		return raw, nil // for the client, nil is the absence of a value
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	return special(value)
}

// special replaces the objects that stand for values which JSON cannot hold.
func special(value any) (any, error) {
	switch value := value.(type) {
	case json.Number:
		if number, err := value.Int64(); err == nil {
			return number, nil
		}
		return value.Float64()
	case []any:
		for i, item := range value {
			replaced, err := special(item)
			if err != nil {
				return nil, err
			}
			value[i] = replaced
		}
		return value, nil
	case map[string]any:
		return specialObject(value)
	default:
		return value, nil
	}
}

func specialObject(object map[string]any) (any, error) {
	for name, member := range object {
		switch name {
		case "$any":
			return anyOf(member)
		case "$integer":
			return json.Number(member.(string)), nil
		case "$number":
			numbers := map[any]float64{
				"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1),
			}
			return numbers[member], nil
		case "$utf16":
			return textOf(member.([]any))
		case "$cycle":
			list := []any{nil}
			list[0] = list
			return list, nil
		case "$unserialisable":
			return make(chan int), nil
		}
		replaced, err := special(member)
		if err != nil {
			return nil, err
		}
		object[name] = replaced
	}
	return object, nil
}

// textOf returns the text of the code units. A lone surrogate has no place in a text of Go.
func textOf(numbers []any) (any, error) {
	units := make([]uint16, len(numbers))
	for i, number := range numbers {
		unit, err := number.(json.Number).Int64()
		if err != nil {
			return nil, err
		}
		units[i] = uint16(unit)
	}
	text := utf16.Decode(units)
	if !slices.Equal(utf16.Encode(text), units) {
		return nil, errUnsupported
	}
	return string(text), nil
}

func anyOf(member any) (any, error) {
	packed := member.(map[string]any)
	value, err := base64.StdEncoding.DecodeString(packed["value"].(string))
	return &anypb.Any{TypeUrl: packed["type_url"].(string), Value: value}, err
}
