package webhook_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"milepost.dev/go/webhook"
)

const (
	secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	other  = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	body   = `{"type": "operation.completed", "timestamp": "2026-11-26T10:00:00.000000Z",
		"data": {"operation_id": "op_1", "version": null, "revision": 3, "result": {"frames": 7}}}`
)

func signed(t *testing.T, secret string, at time.Time) http.Header {
	t.Helper()
	signer, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign("whd_1", at, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	header.Set("webhook-id", "whd_1")
	header.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
	header.Set("webhook-signature", signature)
	return header
}

func TestVerifiedWebhookHasItsContent(t *testing.T) {
	request := httptest.NewRequest(http.MethodPost, "/hook", strings.NewReader(body))
	request.Header = signed(t, secret, time.Now())
	event, err := webhook.Read(request, other, secret)
	if err != nil {
		t.Fatal(err)
	}
	if event.ID != "whd_1" || event.Type != "operation.completed" || event.Data.Revision != 3 ||
		string(event.Data.Result) != `{"frames": 7}` {
		t.Errorf("unexpected event: %+v", event)
	}
}

func TestUntrustedWebhooksAreRefused(t *testing.T) {
	now := time.Now()
	cases := map[string]struct {
		body    string
		header  http.Header
		secrets []string
	}{
		"another secret": {body, signed(t, other, now), []string{secret}},
		"another body":   {body + " ", signed(t, secret, now), []string{secret}},
		"too old":        {body, signed(t, secret, now.Add(-6*time.Minute)), []string{secret}},
		"no headers":     {body, http.Header{}, []string{secret}},
	}
	for name, each := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := webhook.Verify([]byte(each.body), each.header, each.secrets...)
			if !errors.Is(err, webhook.ErrNotVerified) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestMalformedSecretsAreErrorsWithoutTheirText(t *testing.T) {
	for _, malformed := range [][]string{nil, {""}, {"whsec_"}, {"whsec_?!secret"}} {
		_, err := webhook.Verify([]byte(body), signed(t, secret, time.Now()), malformed...)
		if err == nil || errors.Is(err, webhook.ErrNotVerified) || strings.Contains(err.Error(), "?!") {
			t.Errorf("%q: got %v", malformed, err)
		}
	}
}
