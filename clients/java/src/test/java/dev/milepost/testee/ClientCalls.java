package dev.milepost.testee;

import com.google.gson.JsonParser;
import dev.milepost.client.Milepost;
import dev.milepost.client.MilepostBuilder;
import dev.milepost.client.Webhooks;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;

/** The calls that open and close clients, and those without one. */
final class ClientCalls {
  private final Handles handles;

  ClientCalls(Handles handles) {
    this.handles = handles;
  }

  /** A client, and the token that its source returns. */
  static final class Connection {
    private Milepost client;
    private volatile String token;

    Milepost client() {
      return client;
    }
  }

  Map<String, Main.Call> calls() {
    return Map.of(
        "connect", this::connect,
        "set_token", this::setToken,
        "disconnect", this::disconnect,
        "verify_webhook", ClientCalls::verifyWebhook);
  }

  private Object connect(Command command) throws IOException {
    Connection connection = new Connection();
    MilepostBuilder builder = Milepost.builder(command.text("address"));
    command.withText("api_key", builder::apiKey);
    if (command.has("token")) {
      connection.token = command.text("token");
      builder.tokenSource(() -> connection.token);
    }
    if (command.isTrue("insecure")) {
      builder.insecure();
    }
    command.withDuration("deadline", builder::deadline);
    if (command.has("ca_file") || command.has("certificate_file")) {
      TlsChannelCredentials.Builder tls = TlsChannelCredentials.newBuilder();
      if (command.has("ca_file")) {
        tls.trustManager(new File(command.text("ca_file")));
      }
      if (command.has("certificate_file")) {
        tls.keyManager(
            new File(command.text("certificate_file")), new File(command.text("key_file")));
      }
      builder.tls(tls.build());
    }
    connection.client = builder.build();
    return Map.of("client", handles.put(connection));
  }

  private Object setToken(Command command) {
    handles.take(Connection.class, command.text("client")).token = command.text("token");
    return Map.of();
  }

  private Object disconnect(Command command) {
    handles.take(Connection.class, command.text("client")).client().close();
    return Map.of();
  }

  private static Object verifyWebhook(Command command) throws Exception {
    Map<String, String> headers = new HashMap<>();
    command
        .members("headers")
        .forEach((name, value) -> headers.put(name.toLowerCase(Locale.ROOT), (String) value));
    String body = command.text("body");
    Webhooks.verify(
        body.getBytes(java.nio.charset.StandardCharsets.UTF_8),
        headers::get,
        command.texts("secrets").toArray(String[]::new));
    return Map.of("content", JsonParser.parseString(body));
  }
}
