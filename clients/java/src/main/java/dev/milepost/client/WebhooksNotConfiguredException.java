package dev.milepost.client;

/** A request about webhooks to a service that sends none. */
public class WebhooksNotConfiguredException extends MilepostException {
  WebhooksNotConfiguredException(Refusal refusal) {
    super(refusal);
  }
}
