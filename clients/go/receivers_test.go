package milepost_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	milepost "milepost.dev/go"
	"milepost.dev/go/webhook"
)

// TestEncryptedWebhooks reads secrets and deliveries over TLS with an authority of its own.
func TestEncryptedWebhooks(t *testing.T) {
	requests := make(chan *webhook.Event, 10)
	var secret atomic.Value
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		event, err := webhook.Read(r, secret.Load().(string))
		if err != nil {
			t.Error(err)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		requests <- event
	}))
	defer receiver.Close()
	_, port, err := net.SplitHostPort(receiver.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := startService(t, "--tls", "--webhooks", "--set", "webhook_allow_http=true",
		"--set", "webhook_allowed_networks=127.0.0.0/8", "--set", "webhook_allowed_ports="+port)
	authority, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(authority) {
		t.Fatal("no certificate")
	}
	key := s.Key("receiver", "CALLER")
	ctx := t.Context()
	client := newClient(t, s.Address, milepost.WithAPIKey(key), milepost.WithTLS(config))

	stranger := newClient(t, s.Address, milepost.WithAPIKey(key), milepost.WithDeadline(time.Second),
		milepost.WithTLS(&tls.Config{MinVersion: tls.VersionTLS12}))
	var away *milepost.UnavailableError
	if _, err := stranger.SigningSecrets(ctx); !errors.As(err, &away) {
		t.Errorf("an unknown authority: %v", err)
	}

	var none *milepost.SigningSecretNotFoundError
	if _, err := client.SigningSecrets(ctx); !errors.As(err, &none) {
		t.Errorf("no secret yet: %v", err)
	}
	o, err := client.Create(ctx, milepost.CreateRequest{
		Function: uniqueFunction(), CallbackURL: receiver.URL + "/hook?token=x",
		CallbackEvents: []string{"operation.cancelled"},
	})
	if err != nil || o.CallbackURL != receiver.URL+"/hook" {
		t.Fatal(o, err)
	}
	secrets, err := client.SigningSecrets(ctx)
	if err != nil || !strings.HasPrefix(secrets.Current.Value, "whsec_") || secrets.Previous != nil {
		t.Fatal(secrets, err)
	}
	if shown := fmt.Sprintf("%v %+v %#v", secrets.Current, *secrets, secrets.Current); strings.Contains(shown, "whsec_") {
		t.Errorf("the secret is shown: %s", shown)
	}
	rotated, err := client.RotateSigningSecret(ctx, "")
	if err != nil || rotated.Previous.Value != secrets.Current.Value || rotated.Previous.ExpireTime.IsZero() {
		t.Errorf("rotated: %v %v", rotated, err)
	}
	secret.Store(rotated.Current.Value)
	if _, err := client.Cancel(ctx, o.ID, milepost.CancelRequest{}); err != nil {
		t.Fatal(err)
	}
	var deliveries []*milepost.Delivery
	for delivery, err := range client.Deliveries(ctx, milepost.DeliveriesRequest{OperationID: o.ID}) {
		if err != nil {
			t.Fatal(err)
		}
		deliveries = append(deliveries, delivery)
	}
	if len(deliveries) != 1 || deliveries[0].EventType != "operation.cancelled" {
		t.Fatalf("deliveries: %v", deliveries)
	}
	event := <-requests
	if event.ID != deliveries[0].ID || event.Data.OperationID != o.ID || event.Data.Status != "CANCELLED" {
		t.Errorf("the webhook: %+v", event)
	}
	eventually(t, "the delivery is settled", func() bool {
		again, err := client.Redeliver(ctx, deliveries[0].ID, "")
		return err == nil && again.ID == event.ID
	})
	if again := <-requests; again.ID != event.ID {
		t.Errorf("sent again: %+v", again)
	}
	attempt, err := client.SendTestWebhook(ctx, receiver.URL+"/hook")
	if err != nil || attempt.StatusCode != http.StatusOK || attempt.Error != "" {
		t.Errorf("the test webhook: %+v %v", attempt, err)
	}
}
