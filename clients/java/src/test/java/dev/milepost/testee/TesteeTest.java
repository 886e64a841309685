package dev.milepost.testee;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.standardwebhooks.Webhook;
import dev.milepost.client.Service;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PipedInputStream;
import java.io.PipedOutputStream;
import java.time.Instant;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;

/** Performs every call of the testee at least once, one after the other. */
class TesteeTest {
  private static final Gson GSON = new Gson();
  private static final String SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

  private final Set<String> called = new HashSet<>();
  private final PipedOutputStream input = new PipedOutputStream();
  private final PipedOutputStream output = new PipedOutputStream();
  private final Main testee = new Main(output);
  private final PipedInputStream testeeInput = new PipedInputStream(input);
  private final BufferedReader answers =
      new BufferedReader(new InputStreamReader(new PipedInputStream(output), UTF_8));

  TesteeTest() throws IOException {
    Thread serving =
        new Thread(
            () -> {
              try {
                testee.serve(testeeInput);
              } catch (IOException closed) {
                // The test has ended.
              }
            });
    serving.setDaemon(true);
    serving.start();
  }

  private JsonObject answer(String call, Map<String, Object> arguments) throws IOException {
    called.add(call);
    Map<String, Object> command = new HashMap<>(arguments);
    command.put("id", 7);
    command.put("call", call);
    input.write((GSON.toJson(command) + "\n").getBytes(UTF_8));
    input.flush();
    JsonObject answer = JsonParser.parseString(answers.readLine()).getAsJsonObject();
    assertEquals(7, answer.get("id").getAsInt());
    return answer;
  }

  private JsonObject ok(String call, Map<String, Object> arguments) throws IOException {
    JsonObject answer = answer(call, arguments);
    assertTrue(answer.has("ok"), () -> call + ": " + answer);
    return answer.getAsJsonObject("ok");
  }

  private String failure(String call, Map<String, Object> arguments) throws IOException {
    JsonObject answer = answer(call, arguments);
    assertTrue(answer.has("error"), () -> call + ": " + answer);
    return answer.getAsJsonObject("error").get("class").getAsString();
  }

  @Test
  void everyCall() throws Exception {
    try (Service service = new Service("--webhooks")) {
      String alice =
          ok(
                  "connect",
                  Map.of(
                      "address",
                      service.address(),
                      "api_key",
                      service.key("CALLER"),
                      "deadline",
                      5))
              .get("client")
              .getAsString();
      String worker =
          ok("connect", Map.of("address", service.address(), "token", "mk_wrong"))
              .get("client")
              .getAsString();
      Map<String, Object> claim = Map.of("client", worker, "functions", List.of("f"));
      assertEquals("Unauthenticated", failure("claim", claim));
      ok("set_token", Map.of("client", worker, "token", service.key("WORKER")));
      byHand(alice, worker);
      byWorker(alice, worker);
      webhooks();
      receivers(alice);
      bench(service);
      ok("disconnect", Map.of("client", worker));
      assertEquals("Error", failure("claim", claim));
      assertTrue(answer("no_such_call", Map.of()).get("unsupported").getAsBoolean());
      called.remove("no_such_call");
      assertEquals(testee.calls().keySet(), called);
    }
  }

  private String create(String client, String function) throws IOException {
    Map<String, Object> metadata = Map.of("n", 1);
    return ok("create", Map.of("client", client, "function", function, "metadata", metadata))
        .get("id")
        .getAsString();
  }

  private void byHand(String alice, String worker) throws IOException {
    String id = create(alice, "hand");
    Map<String, Object> read = Map.of("client", alice, "operation_id", id);
    Map<String, Object> write = Map.of("client", worker, "operation_id", id);
    assertEquals("PENDING", ok("get", read).get("status").getAsString());
    for (String call : List.of("list", "events", "watch")) {
      Map<String, Object> stream = Map.of("stream", ok(call, read).get("stream").getAsString());
      assertTrue(ok("next", stream).has("item"));
      if (!call.equals("watch")) {
        assertTrue(ok("next", stream).get("end").getAsBoolean());
      }
      ok("close", stream);
    }
    ok("start", with(write, "progress", 0.1));
    ok("update_progress", with(with(write, "progress", 0.5), "checkpoint", Map.of("at", 3)));
    assertEquals("CancellationNotRequested", failure("acknowledge_cancellation", write));
    ok("release", write);
    JsonObject claimed =
        ok("claim", Map.of("client", worker, "functions", List.of("hand")))
            .getAsJsonArray("operations")
            .get(0)
            .getAsJsonObject();
    assertEquals("{\"at\":3.0}", claimed.get("checkpoint").toString());
    assertEquals(
        "Error", failure("complete", with(write, "result", Map.of("$utf16", List.of(55296)))));
    assertEquals(
        "Error",
        failure("complete", with(write, "result", Map.of("$integer", "9007199254740993"))));
    assertEquals("Error", failure("complete", with(write, "result", Map.of("$cycle", true))));
    assertEquals(
        "Error", failure("complete", with(write, "result", Map.of("$unserialisable", true))));
    assertEquals("Error", failure("complete", with(write, "result", Map.of("$number", "NaN"))));
    ok("complete", with(write, "result", Map.of("a", List.of("ü", true))));
    assertEquals("COMPLETED", ok("wait", read).get("status").getAsString());
    assertEquals(
        "{\"a\":[\"ü\",true]}", ok("result", with(read, "timeout", 5)).get("result").toString());
    ok("delete", read);
    String other = create(alice, "other");
    Map<String, Object> cancel = Map.of("client", alice, "operation_id", other);
    ok("cancel", with(cancel, "reason", "no need"));
    assertEquals("OperationCancelled", failure("result", cancel));
    String failed = create(alice, "failed");
    ok("start", Map.of("client", worker, "operation_id", failed));
    Map<String, Object> fail =
        Map.of(
            "client",
            worker,
            "operation_id",
            failed,
            "errors",
            List.of(Map.of("code", "E", "message", "m")));
    assertEquals("FAILED", ok("fail", fail).get("status").getAsString());
  }

  private static Map<String, Object> with(Map<String, Object> map, String name, Object value) {
    Map<String, Object> more = new HashMap<>(map);
    more.put(name, value);
    return more;
  }

  private void byWorker(String alice, String client) throws IOException {
    Map<String, Object> worker =
        Map.of(
            "worker",
            ok("worker_start", Map.of("client", client, "functions", List.of("work"), "grace", 1))
                .get("worker")
                .getAsString());
    String id = create(alice, "work");
    Map<String, Object> work = Map.of("work", ok("worker_next", worker).get("work").getAsString());
    ok("work_progress", with(work, "progress", 0.5));
    assertEquals(
        "{\"stopped\":null,\"cancel_requested\":false}", ok("work_state", work).toString());
    ok(
        "work_return",
        with(work, "result", Map.of("$any", Map.of("type_url", "x/y.Z", "value", "AA=="))));
    String result =
        ok("result", Map.of("client", alice, "operation_id", id)).get("result").toString();
    assertEquals("{\"$any\":{\"type_url\":\"x/y.Z\",\"value\":\"AA==\"}}", sorted(result));
    String other = create(alice, "work");
    Map<String, Object> failing =
        Map.of("work", ok("worker_next", worker).get("work").getAsString());
    ok("work_throw", with(with(with(failing, "kind", "permanent"), "code", "C"), "message", "m"));
    assertEquals(
        "OperationFailed", failure("result", Map.of("client", alice, "operation_id", other)));
    ok("worker_stop", worker);
  }

  /** Returns the text with the members in the order of their names. */
  private static String sorted(String any) {
    JsonObject content = JsonParser.parseString(any).getAsJsonObject().getAsJsonObject("$any");
    return "{\"$any\":{\"type_url\":"
        + content.get("type_url")
        + ",\"value\":"
        + content.get("value")
        + "}}";
  }

  private void webhooks() throws Exception {
    String body =
        "{\"type\":\"operation.completed\",\"timestamp\":\"2026-11-26T10:00:00Z\",\"data\":{}}";
    long now = Instant.now().getEpochSecond();
    String signature = new Webhook(SECRET).sign("whd_1", now, body);
    Map<String, Object> headers =
        Map.of(
            "Webhook-Id", "whd_1", "webhook-timestamp", "" + now, "webhook-signature", signature);
    Map<String, Object> request =
        Map.of("body", body, "headers", headers, "secrets", List.of(SECRET));
    JsonObject content = ok("verify_webhook", request).getAsJsonObject("content");
    assertEquals("operation.completed", content.get("type").getAsString());
    assertEquals("NotVerified", failure("verify_webhook", with(request, "body", body + " ")));
  }

  private void receivers(String alice) throws IOException {
    Map<String, Object> client = Map.of("client", alice);
    assertTrue(ok("rotate_signing_secret", client).has("current"));
    assertTrue(ok("signing_secrets", client).getAsJsonObject("current").has("value"));
    Map<String, Object> stream =
        Map.of("stream", ok("deliveries", client).get("stream").getAsString());
    assertTrue(ok("next", stream).get("end").getAsBoolean());
    assertEquals("InvalidRequest", failure("redeliver", with(client, "delivery_id", "x")));
    assertEquals(
        "InvalidRequest", failure("send_test_webhook", with(client, "callback_url", "ftp://x")));
  }

  private void bench(Service service) throws IOException {
    Map<String, Object> loop =
        Map.of(
            "address",
            service.address(),
            "api_key",
            service.key("CALLER"),
            "loop",
            "unary",
            "seconds",
            0.1,
            "concurrency",
            1);
    assertEquals("OperationNotFound", failure("bench", loop)); // the real one is an echo server
  }
}
