package dev.milepost.testee;

import dev.milepost.client.DeliveriesOptions;
import dev.milepost.client.DeliveryStatus;
import dev.milepost.client.WebhookCalls;
import java.util.Map;

/** The calls of receivers of webhooks. */
final class ReceiverCalls {
  private final Handles handles;

  ReceiverCalls(Handles handles) {
    this.handles = handles;
  }

  Map<String, Main.Call> calls() {
    return Map.of(
        "signing_secrets", command -> Output.ofRecord(receiver(command).signingSecrets()),
        "rotate_signing_secret", this::rotate,
        "deliveries", this::deliveries,
        "redeliver", this::redeliver,
        "send_test_webhook", this::sendTestWebhook);
  }

  private WebhookCalls receiver(Command command) {
    return handles
        .take(ClientCalls.Connection.class, command.text("client"))
        .client()
        .webhookCalls();
  }

  private Object rotate(Command command) throws ReflectiveOperationException {
    String requestId = command.text("request_id");
    return Output.ofRecord(
        requestId == null
            ? receiver(command).rotateSigningSecret()
            : receiver(command).rotateSigningSecret(requestId));
  }

  private Object deliveries(Command command) {
    DeliveriesOptions options = new DeliveriesOptions();
    command.withText("operation_id", options::operationId);
    options.statuses(command.texts("statuses").stream().map(DeliveryStatus::valueOf).toList());
    command.withInt("page_size", options::pageSize);
    StreamCalls.ItemStream stream =
        new StreamCalls.ItemStream(receiver(command).deliveries(options).iterator(), () -> {});
    return Map.of("stream", handles.put(stream));
  }

  private Object redeliver(Command command) throws ReflectiveOperationException {
    String id = command.text("delivery_id");
    String requestId = command.text("request_id");
    return Output.ofRecord(
        requestId == null
            ? receiver(command).redeliver(id)
            : receiver(command).redeliver(id, requestId));
  }

  private Object sendTestWebhook(Command command) throws ReflectiveOperationException {
    return Output.ofRecord(receiver(command).sendTestWebhook(command.text("callback_url")));
  }
}
