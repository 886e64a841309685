package main

import (
	"context"
	"iter"

	milepost "milepost.dev/go"
)

func signingSecrets(ctx context.Context, client *milepost.Client, _ *command) (any, error) {
	return secrets(client.SigningSecrets(ctx))
}

func rotateSigningSecret(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	return secrets(client.RotateSigningSecret(ctx, c.RequestID))
}

// secrets returns the answer of a call that returns signing secrets.
func secrets(found *milepost.SigningSecrets, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	o := object{"current": fromSecret(found.Current)}
	if found.Previous != nil {
		o["previous"] = fromSecret(*found.Previous)
	}
	return o, nil
}

func fromSecret(secret milepost.SigningSecret) object {
	o := object{"value": secret.Value}
	o.time("create_time", secret.CreateTime)
	o.time("expire_time", secret.ExpireTime)
	return o
}

func deliveries(t *testee, ctx context.Context, c *command) (any, error) {
	request := milepost.DeliveriesRequest{OperationID: c.OperationID, PageSize: c.PageSize}
	for _, status := range c.Statuses {
		request.Statuses = append(request.Statuses, milepost.DeliveryStatus(status))
	}
	return open(t, ctx, c, fromDelivery,
		func(ctx context.Context, client *milepost.Client) iter.Seq2[*milepost.Delivery, error] {
			return client.Deliveries(ctx, request)
		})
}

func redeliver(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	delivery, err := client.Redeliver(ctx, c.DeliveryID, c.RequestID)
	if err != nil {
		return nil, err
	}
	return fromDelivery(delivery), nil
}

func sendTestWebhook(ctx context.Context, client *milepost.Client, c *command) (any, error) {
	attempt, err := client.SendTestWebhook(ctx, c.CallbackURL)
	if err != nil {
		return nil, err
	}
	return fromAttempt(*attempt), nil
}

func fromDelivery(delivery *milepost.Delivery) object {
	attempts := make([]object, len(delivery.Attempts))
	for i, attempt := range delivery.Attempts {
		attempts[i] = fromAttempt(attempt)
	}
	o := object{
		"id": delivery.ID, "operation_id": delivery.OperationID, "revision": delivery.Revision,
		"event_type": delivery.EventType, "callback_url": delivery.CallbackURL,
		"status": delivery.Status, "attempts": attempts,
	}
	o.time("create_time", delivery.CreateTime)
	o.time("next_attempt_time", delivery.NextAttemptTime)
	o.time("settle_time", delivery.SettleTime)
	return o
}

func fromAttempt(attempt milepost.DeliveryAttempt) object {
	o := object{"number": attempt.Number, "duration": attempt.Duration.Seconds()}
	o.time("start_time", attempt.StartTime)
	o.text("error", attempt.Error)
	if attempt.StatusCode != 0 {
		o["status_code"] = attempt.StatusCode
	}
	return o
}
