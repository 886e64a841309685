package milepost

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	pb "milepost.dev/go/gen/milepost/v1"
)

// SigningSecret is a secret that signs your webhooks.
type SigningSecret struct {
	// Value is the secret itself. Keep it as safe as a password.
	Value      string
	CreateTime time.Time
	// ExpireTime is the time at which it stops signing; only after a rotation.
	ExpireTime time.Time
}

// String returns everything but the secret.
func (s SigningSecret) String() string {
	return fmt.Sprintf("SigningSecret(created %s)", s.CreateTime.Format(time.RFC3339))
}

// GoString returns everything but the secret.
func (s SigningSecret) GoString() string { return s.String() }

// SigningSecrets are the secrets that sign your webhooks; for 24 hours after a rotation, both.
type SigningSecrets struct {
	Current SigningSecret
	// Previous is the secret before the rotation; nil without one.
	Previous *SigningSecret
}

// DeliveryStatus is the status of a delivery.
type DeliveryStatus string

// The statuses of a delivery.
const (
	DeliveryUnknown   DeliveryStatus = "UNKNOWN"
	DeliveryPending   DeliveryStatus = "PENDING"
	DeliveryDelivered DeliveryStatus = "DELIVERED"
	DeliveryExhausted DeliveryStatus = "EXHAUSTED"
	DeliveryStopped   DeliveryStatus = "STOPPED"
)

const deliveryPrefix = "DELIVERY_STATUS_"

// DeliveryAttempt is one attempt to send a webhook.
type DeliveryAttempt struct {
	Number    int
	StartTime time.Time
	Duration  time.Duration
	// StatusCode is that of the answer; 0 without one.
	StatusCode int
	Error      string
}

// Delivery is one webhook, for one event of one operation.
type Delivery struct {
	// ID is the webhook-id of every attempt.
	ID              string
	OperationID     string
	Revision        int64
	EventType       string
	CallbackURL     string
	Status          DeliveryStatus
	CreateTime      time.Time
	NextAttemptTime time.Time
	SettleTime      time.Time
	Attempts        []DeliveryAttempt
}

// SigningSecrets returns the secrets that sign your webhooks. Your first operation with a callback
// URL creates the secret, and so does a rotation.
func (c *Client) SigningSecrets(ctx context.Context) (*SigningSecrets, error) {
	answer, err := send[pb.GetSigningSecretResponse](
		ctx, c, pb.WebhookService_GetSigningSecret_FullMethodName, &pb.GetSigningSecretRequest{}, 0)
	if err != nil {
		return nil, err
	}
	return fromSecrets(answer.GetCurrent(), answer.GetPrevious()), nil
}

// RotateSigningSecret creates a secret that replaces the current one; for 24 hours both sign. A
// request id makes the call repeatable over a restart of the program; it may be empty.
func (c *Client) RotateSigningSecret(
	ctx context.Context, requestID string,
) (*SigningSecrets, error) {
	answer, err := send[pb.RotateSigningSecretResponse](
		ctx, c, pb.WebhookService_RotateSigningSecret_FullMethodName,
		&pb.RotateSigningSecretRequest{RequestId: optional(requestID)}, 0)
	if err != nil {
		return nil, err
	}
	return fromSecrets(answer.GetCurrent(), answer.GetPrevious()), nil
}

// DeliveriesRequest selects deliveries that match every filter. The zero value selects all.
type DeliveriesRequest struct {
	OperationID string
	Statuses    []DeliveryStatus
	// PageSize is the number of deliveries per call: 50 by default, at most 100.
	PageSize int
}

// Deliveries iterates over your webhooks, newest first, over all pages. A rate limit refuses the
// first page, and delays each of the others for up to 5 minutes.
func (c *Client) Deliveries(
	ctx context.Context, r DeliveriesRequest,
) iter.Seq2[*Delivery, error] {
	request := &pb.ListDeliveriesRequest{
		PageSize: toInt32(r.PageSize), OperationId: optional(r.OperationID),
	}
	for _, status := range r.Statuses {
		number := pb.DeliveryStatus_value[deliveryPrefix+string(status)]
		request.Statuses = append(request.Statuses, pb.DeliveryStatus(number))
	}
	return pages(ctx, func(token string) ([]*Delivery, string, error) {
		request.PageToken = token
		page, err := send[pb.ListDeliveriesResponse](
			ctx, c, pb.WebhookService_ListDeliveries_FullMethodName, request, 0)
		deliveries := make([]*Delivery, len(page.GetDeliveries()))
		for i, delivery := range page.GetDeliveries() {
			deliveries[i] = fromDelivery(delivery)
		}
		return deliveries, page.GetNextPageToken(), err
	})
}

// Redeliver sends a settled webhook again, with the same id. The request id may be empty.
func (c *Client) Redeliver(
	ctx context.Context, deliveryID, requestID string,
) (*Delivery, error) {
	answer, err := send[pb.RedeliverWebhookResponse](
		ctx, c, pb.WebhookService_RedeliverWebhook_FullMethodName,
		&pb.RedeliverWebhookRequest{DeliveryId: deliveryID, RequestId: optional(requestID)}, 0)
	if err != nil {
		return nil, err
	}
	return fromDelivery(answer.GetDelivery()), nil
}

// SendTestWebhook sends one test webhook to a URL at once, and returns the attempt.
func (c *Client) SendTestWebhook(ctx context.Context, callbackURL string) (*DeliveryAttempt, error) {
	answer, err := send[pb.SendTestWebhookResponse](
		ctx, c, pb.WebhookService_SendTestWebhook_FullMethodName,
		&pb.SendTestWebhookRequest{CallbackUrl: callbackURL}, 0)
	if err != nil {
		return nil, err
	}
	return new(fromAttempt(answer.GetAttempt())), nil
}

func fromSecrets(current, previous *pb.SigningSecret) *SigningSecrets {
	secrets := &SigningSecrets{Current: fromSecret(current)}
	if previous != nil {
		secrets.Previous = new(fromSecret(previous))
	}
	return secrets
}

func fromSecret(m *pb.SigningSecret) SigningSecret {
	return SigningSecret{
		Value: m.GetValue(), CreateTime: fromTime(m.GetCreateTime()),
		ExpireTime: fromTime(m.GetExpireTime()),
	}
}

func fromDelivery(m *pb.Delivery) *Delivery {
	delivery := &Delivery{
		ID: m.GetId(), OperationID: m.GetOperationId(), Revision: m.GetRevision(),
		EventType: m.GetEventType(), CallbackURL: m.GetCallbackUrl(),
		Status: fromDeliveryStatus(m.GetStatus()), CreateTime: fromTime(m.GetCreateTime()),
		NextAttemptTime: fromTime(m.GetNextAttemptTime()), SettleTime: fromTime(m.GetSettleTime()),
	}
	for _, attempt := range m.GetAttempts() {
		delivery.Attempts = append(delivery.Attempts, fromAttempt(attempt))
	}
	return delivery
}

func fromDeliveryStatus(number pb.DeliveryStatus) DeliveryStatus {
	name := strings.TrimPrefix(pb.DeliveryStatus_name[int32(number)], deliveryPrefix)
	switch status := DeliveryStatus(name); status {
	case DeliveryPending, DeliveryDelivered, DeliveryExhausted, DeliveryStopped:
		return status
	default:
		return DeliveryUnknown
	}
}

func fromAttempt(m *pb.DeliveryAttempt) DeliveryAttempt {
	return DeliveryAttempt{
		Number: int(m.GetNumber()), StartTime: fromTime(m.GetStartTime()),
		Duration: m.GetDuration().AsDuration(), StatusCode: int(m.GetStatusCode()), Error: m.GetError(),
	}
}
