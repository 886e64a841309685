package dev.milepost.client;

import dev.milepost.v1.GetSigningSecretRequest;
import dev.milepost.v1.GetSigningSecretResponse;
import dev.milepost.v1.ListDeliveriesRequest;
import dev.milepost.v1.ListDeliveriesResponse;
import dev.milepost.v1.RedeliverWebhookRequest;
import dev.milepost.v1.RotateSigningSecretRequest;
import dev.milepost.v1.RotateSigningSecretResponse;
import dev.milepost.v1.SendTestWebhookRequest;
import dev.milepost.v1.WebhookServiceGrpc;
import java.util.Optional;

/** The calls of a receiver of webhooks. */
public final class WebhookCalls {
  private final Calls calls;

  WebhookCalls(Calls calls) {
    this.calls = calls;
  }

  /**
   * Returns the secrets that sign your webhooks. Your first operation with a callback URL creates
   * one, and so does a rotation.
   *
   * @return the secrets
   */
  public SigningSecrets signingSecrets() {
    GetSigningSecretResponse answer =
        calls.send(
            WebhookServiceGrpc.getGetSigningSecretMethod(),
            GetSigningSecretRequest.getDefaultInstance());
    return new SigningSecrets(
        SigningSecret.of(answer.getCurrent()),
        answer.hasPrevious()
            ? Optional.of(SigningSecret.of(answer.getPrevious()))
            : Optional.empty());
  }

  /**
   * Creates a secret that replaces the current one; for 24 hours both sign.
   *
   * @return the secrets
   */
  public SigningSecrets rotateSigningSecret() {
    return rotateSigningSecret(Calls.newRequestId());
  }

  /**
   * Creates a secret that replaces the current one; for 24 hours both sign.
   *
   * @param requestId makes the call repeatable over a restart of the program
   * @return the secrets
   */
  public SigningSecrets rotateSigningSecret(String requestId) {
    RotateSigningSecretRequest request =
        RotateSigningSecretRequest.newBuilder().setRequestId(requestId).build();
    RotateSigningSecretResponse answer =
        calls.send(WebhookServiceGrpc.getRotateSigningSecretMethod(), request);
    return new SigningSecrets(
        SigningSecret.of(answer.getCurrent()),
        answer.hasPrevious()
            ? Optional.of(SigningSecret.of(answer.getPrevious()))
            : Optional.empty());
  }

  /**
   * Lists your webhooks, newest first.
   *
   * @return the webhooks of all pages
   */
  public Pages<Delivery> deliveries() {
    return deliveries(new DeliveriesOptions());
  }

  /**
   * Lists the webhooks that match, newest first.
   *
   * @param options the filters
   * @return the webhooks of all pages
   */
  public Pages<Delivery> deliveries(DeliveriesOptions options) {
    ListDeliveriesRequest first = options.toMessage();
    return new Pages<>(
        token -> {
          ListDeliveriesRequest request = first.toBuilder().setPageToken(token).build();
          ListDeliveriesResponse page =
              calls.send(WebhookServiceGrpc.getListDeliveriesMethod(), request);
          return new Pages.Page<>(
              page.getDeliveriesList().stream().map(Delivery::of).toList(),
              page.getNextPageToken());
        });
  }

  /**
   * Sends a settled webhook again, with the same id.
   *
   * @param deliveryId the id of the webhook
   * @return the webhook
   */
  public Delivery redeliver(String deliveryId) {
    return redeliver(deliveryId, Calls.newRequestId());
  }

  /**
   * Sends a settled webhook again, with the same id.
   *
   * @param deliveryId the id of the webhook
   * @param requestId makes the call repeatable over a restart of the program
   * @return the webhook
   */
  public Delivery redeliver(String deliveryId, String requestId) {
    RedeliverWebhookRequest request =
        RedeliverWebhookRequest.newBuilder()
            .setDeliveryId(deliveryId)
            .setRequestId(requestId)
            .build();
    return Delivery.of(
        calls.send(WebhookServiceGrpc.getRedeliverWebhookMethod(), request).getDelivery());
  }

  /**
   * Sends one test webhook to a URL at once.
   *
   * @param callbackUrl the URL
   * @return the attempt
   */
  public DeliveryAttempt sendTestWebhook(String callbackUrl) {
    SendTestWebhookRequest request =
        SendTestWebhookRequest.newBuilder().setCallbackUrl(callbackUrl).build();
    return DeliveryAttempt.of(
        calls.send(WebhookServiceGrpc.getSendTestWebhookMethod(), request).getAttempt());
  }
}
