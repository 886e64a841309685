package dev.milepost.client;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.standardwebhooks.Webhook;
import com.sun.net.httpserver.HttpServer;
import io.grpc.TlsChannelCredentials;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.time.Instant;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;

/** The verification of webhooks, and real ones over TLS with an authority of its own. */
class WebhooksTest {
  private static final String SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  private static final String OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
  private static final String BODY =
      """
      {"type": "operation.completed", "timestamp": "2026-11-26T10:00:00.000000Z",
       "data": {"operation_id": "op_1", "version": null, "revision": 3, "result": {"n": 7}}}""";

  private static Map<String, String> signed(String body, Instant time) throws Exception {
    Map<String, String> headers = new HashMap<>();
    headers.put("webhook-id", "whd_1");
    headers.put("webhook-timestamp", Long.toString(time.getEpochSecond()));
    headers.put(
        "webhook-signature", new Webhook(SECRET).sign("whd_1", time.getEpochSecond(), body));
    return headers;
  }

  private static WebhookEvent verify(String body, Map<String, String> headers, String... secrets)
      throws NotVerifiedException {
    return Webhooks.verify(body.getBytes(UTF_8), headers::get, secrets);
  }

  @Test
  void verifiedWebhooksHaveTheirContent() throws Exception {
    WebhookEvent event = verify(BODY, signed(BODY, Instant.now()), OTHER, SECRET);
    assertEquals("whd_1", event.id());
    assertEquals("operation.completed", event.type());
    assertEquals(Optional.of(Instant.parse("2026-11-26T10:00:00Z")), event.timestamp());
    assertEquals(Map.of("n", 7.0), event.data().get("result"));
    assertTrue(event.data().containsKey("version"));
  }

  /** The example of the specification of Standard Webhooks, whose time is long ago. */
  @Test
  void signaturesAreThoseOfTheSpecification() throws Exception {
    assertEquals(
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        new Webhook(SECRET)
            .sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, "{\"test\": 2432232314}"));
  }

  @Test
  void untrustedWebhooksAreRefused() throws Exception {
    Map<String, String> good = signed(BODY, Instant.now());
    assertThrows(NotVerifiedException.class, () -> verify(BODY, good, OTHER));
    assertThrows(NotVerifiedException.class, () -> verify(BODY + " ", good, SECRET));
    for (Duration age : List.of(Duration.ofMinutes(6), Duration.ofMinutes(-6))) {
      Map<String, String> old = signed(BODY, Instant.now().minus(age));
      assertThrows(NotVerifiedException.class, () -> verify(BODY, old, SECRET));
    }
    for (String name : good.keySet()) {
      for (String value : new String[] {null, "", "x", "v1,"}) {
        Map<String, String> bad = new HashMap<>(good);
        bad.put(name, value);
        assertThrows(NotVerifiedException.class, () -> verify(BODY, bad, SECRET));
      }
    }
    for (String body : List.of("no JSON", "[]", "7")) {
      Map<String, String> headers = signed(body, Instant.now());
      assertThrows(NotVerifiedException.class, () -> verify(body, headers, SECRET));
    }
    for (String secret : List.of("", "whsec_", "whsec_!")) {
      assertThrows(IllegalArgumentException.class, () -> verify(BODY, good, secret));
    }
    assertThrows(IllegalArgumentException.class, () -> verify(BODY, good));
  }

  private final BlockingQueue<WebhookEvent> events = new LinkedBlockingQueue<>();
  private final AtomicReference<String> secret = new AtomicReference<>();

  private HttpServer receiver() throws Exception {
    HttpServer receiver =
        HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
    receiver.createContext(
        "/",
        exchange -> {
          int status = 200;
          try {
            byte[] body = exchange.getRequestBody().readAllBytes();
            events.add(Webhooks.verify(body, exchange.getRequestHeaders()::getFirst, secret.get()));
          } catch (NotVerifiedException refusal) {
            status = 401;
          }
          exchange.sendResponseHeaders(status, -1);
          exchange.close();
        });
    receiver.start();
    return receiver;
  }

  @Test
  void webhooksOfAServiceWithTls() throws Exception {
    HttpServer receiver = receiver();
    int port = receiver.getAddress().getPort();
    String url = "http://127.0.0.1:" + port + "/hook";
    try (Service service =
        new Service(
            "--tls",
            "--webhooks",
            "--set",
            "webhook_allow_http=true",
            "--set",
            "webhook_allowed_networks=127.0.0.0/8",
            "--set",
            "webhook_allowed_ports=" + port)) {
      String key = service.key("CALLER");
      Milepost client =
          service.keep(
              Milepost.builder(service.address())
                  .apiKey(key)
                  .tls(
                      TlsChannelCredentials.newBuilder()
                          .trustManager(service.authority().toFile())
                          .build())
                  .build());
      try (Milepost stranger =
          Milepost.builder(service.address())
              .apiKey(key)
              .tls(TlsChannelCredentials.create())
              .deadline(Duration.ofSeconds(2))
              .build()) {
        assertThrows(UnavailableException.class, () -> stranger.get("op_1"));
      }
      WebhookCalls calls = client.webhookCalls();
      assertThrows(SigningSecretNotFoundException.class, calls::signingSecrets);
      CreateOptions options =
          new CreateOptions()
              .callbackUrl(url + "?token=x")
              .callbackEvents(List.of("operation.cancelled"));
      Operation operation = client.create(Service.uniqueFunction(), options);
      assertEquals(Optional.of(url), operation.callbackUrl());
      SigningSecrets first = calls.signingSecrets();
      assertFalse(first.toString().contains("whsec_"));
      SigningSecrets rotated = calls.rotateSigningSecret();
      SigningSecret previous = rotated.previous().orElseThrow();
      assertEquals(first.current().value(), previous.value());
      assertTrue(previous.expireTime().isPresent());
      secret.set(rotated.current().value());
      client.cancel(operation.id());
      WebhookEvent event = RunningWorker.take(events);
      assertEquals(operation.id(), event.data().get("operation_id"));
      DeliveriesOptions filter = new DeliveriesOptions().operationId(operation.id());
      List<Delivery> deliveries = calls.deliveries(filter).stream().toList();
      assertEquals(1, deliveries.size());
      assertEquals(event.id(), deliveries.get(0).id());
      RunningWorker.eventually("the delivery is settled", () -> isDelivered(calls, operation.id()));
      assertEquals(event.id(), calls.redeliver(event.id()).id());
      assertEquals(event.id(), RunningWorker.take(events).id());
      DeliveryAttempt attempt = calls.sendTestWebhook(url);
      assertEquals(OptionalInt.of(200), attempt.statusCode());
      assertEquals(Optional.empty(), attempt.error());
    } finally {
      receiver.stop(0);
    }
  }

  private static boolean isDelivered(WebhookCalls calls, String id) {
    return calls.deliveries(new DeliveriesOptions().operationId(id)).stream()
        .allMatch(delivery -> delivery.status() == DeliveryStatus.DELIVERED);
  }
}
