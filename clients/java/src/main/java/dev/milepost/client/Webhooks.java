package dev.milepost.client;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import com.google.protobuf.util.JsonFormat;
import com.standardwebhooks.Webhook;
import com.standardwebhooks.exceptions.WebhookVerificationException;
import java.time.DateTimeException;
import java.time.Instant;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;

/**
 * Verifies webhooks: that a request comes from Milepost, and is fresh. It follows Standard
 * Webhooks, through the library of that project.
 */
public final class Webhooks {
  private static final String PREFIX = "whsec_";

  private Webhooks() {}

  /**
   * Verifies the signature and the time of a webhook.
   *
   * @param body the body as it was received, byte for byte
   * @param header returns the value of a header by its name, or null, such as {@code
   *     request::getHeader}
   * @param secrets a signing secret (whsec_…), or several during a rotation
   * @return the content
   * @throws NotVerifiedException if the request must not be trusted
   * @throws IllegalArgumentException if there is no secret, or one is malformed
   */
  public static WebhookEvent verify(byte[] body, Function<String, String> header, String... secrets)
      throws NotVerifiedException {
    if (secrets.length == 0) {
      throw new IllegalArgumentException("a webhook is verified with a secret");
    }
    List<Webhook> verifiers = List.of(secrets).stream().map(Webhooks::verifier).toList();
    String text = new String(body, UTF_8);
    Map<String, List<String>> headers = headers(header);
    Exception problem = null;
    for (Webhook verifier : verifiers) {
      try {
        verifier.verify(text, headers);
        return event(text, header.apply(Webhook.UNBRANDED_MSG_ID_KEY));
      } catch (WebhookVerificationException | RuntimeException refusal) {
        problem = refusal;
      }
    }
    throw new NotVerifiedException("the webhook is not verified", problem);
  }

  private static Webhook verifier(String secret) {
    String key = secret.startsWith(PREFIX) ? secret.substring(PREFIX.length()) : secret;
    if (key.isEmpty()) { // with which anyone can sign
      throw new IllegalArgumentException("a signing secret is empty");
    }
    try {
      return new Webhook(secret);
    } catch (IllegalArgumentException problem) {
      throw new IllegalArgumentException("a signing secret is whsec_ and base64", problem);
    }
  }

  private static Map<String, List<String>> headers(Function<String, String> header) {
    Map<String, List<String>> headers = new HashMap<>();
    for (String name :
        List.of(
            Webhook.UNBRANDED_MSG_ID_KEY,
            Webhook.UNBRANDED_MSG_TIMESTAMP_KEY,
            Webhook.UNBRANDED_MSG_SIGNATURE_KEY)) {
      String value = header.apply(name);
      headers.put(name, List.of(value == null ? "" : value));
    }
    return headers;
  }

  private static WebhookEvent event(String text, String id) throws NotVerifiedException {
    Struct.Builder content = Struct.newBuilder();
    try {
      JsonFormat.parser().merge(text, content);
    } catch (InvalidProtocolBufferException problem) {
      throw new NotVerifiedException("the content is not that of a webhook", problem);
    }
    Value type = content.getFieldsOrDefault("type", Value.getDefaultInstance());
    Value time = content.getFieldsOrDefault("timestamp", Value.getDefaultInstance());
    Value data = content.getFieldsOrDefault("data", Value.getDefaultInstance());
    return new WebhookEvent(
        id,
        type.getStringValue(),
        timestamp(time.getStringValue()),
        Json.fromStruct(data.getStructValue()));
  }

  private static Optional<Instant> timestamp(String text) {
    try {
      return text.isEmpty() ? Optional.empty() : Optional.of(Instant.parse(text));
    } catch (DateTimeException malformed) {
      return Optional.empty();
    }
  }
}
