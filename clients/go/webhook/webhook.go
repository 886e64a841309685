// Package webhook verifies webhooks of Milepost: that a request comes from the service, and is
// fresh. It follows Standard Webhooks, through the library of that project.
package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// MaxBodyBytes bounds the body that [Read] accepts: more than that of any webhook.
const MaxBodyBytes = 8 << 20

// ErrNotVerified says that a request must not be trusted: answer it with 401.
var ErrNotVerified = errors.New("milepost: the webhook is not verified")

// Event is the content of a webhook.
type Event struct {
	// ID is the same when the webhook is sent again.
	ID string `json:"-"`
	// Type is the type of the event, such as "operation.completed".
	Type string `json:"type"`
	// Timestamp is the time of the event.
	Timestamp time.Time `json:"timestamp"`
	// Data is the operation as it was after the event. It is empty in a test webhook.
	Data Data `json:"data"`
}

// Data is the operation of an event.
type Data struct {
	OperationID string `json:"operation_id"`
	Function    string `json:"function"`
	Version     string `json:"version"`
	Status      string `json:"status"`
	// Revision orders the events of one operation.
	Revision int64 `json:"revision"`
	// Result is the result in JSON, after the end.
	Result            json.RawMessage `json:"result"`
	Errors            []Error         `json:"errors"`
	CreateTime        time.Time       `json:"create_time"`
	CompleteTime      time.Time       `json:"complete_time"`
	CancelTime        time.Time       `json:"cancel_time"`
	OriginalRequestID string          `json:"original_request_id"`
	Metadata          map[string]any  `json:"metadata"`
}

// Error is one reason of a failure.
type Error struct {
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Source  string         `json:"source"`
	Details map[string]any `json:"details"`
}

// Read reads and verifies a request; see [Verify].
func Read(request *http.Request, secrets ...string) (*Event, error) {
	body, err := io.ReadAll(io.LimitReader(request.Body, MaxBodyBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > MaxBodyBytes {
		return nil, fmt.Errorf("%w: the body is too large", ErrNotVerified)
	}
	return Verify(body, request.Header, secrets...)
}

// Verify verifies the signature and the time of a webhook, and returns its content. The body is
// that which was received, byte for byte. There may be several secrets (whsec_…), during a rotation.
// An error that is not ErrNotVerified means that a secret is malformed.
func Verify(body []byte, header http.Header, secrets ...string) (*Event, error) {
	if err := check(body, header, secrets); err != nil {
		return nil, err
	}
	event := &Event{ID: header.Get(standardwebhooks.HeaderWebhookID)}
	if err := json.Unmarshal(body, event); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotVerified, err)
	}
	return event, nil
}

func check(body []byte, header http.Header, secrets []string) error {
	if len(secrets) == 0 {
		return errors.New("milepost: a webhook is verified with a secret")
	}
	var problems []error
	for _, secret := range secrets {
		// The library would take the empty key, with which anyone can sign.
		if strings.TrimPrefix(secret, "whsec_") == "" {
			return errors.New("milepost: the signing secret is empty")
		}
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return errors.New("milepost: a signing secret is whsec_ and base64") // not its text
		}
		if err := verifier.Verify(body, header); err != nil {
			problems = append(problems, err)
			continue
		}
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNotVerified, errors.Join(problems...))
}
