package dev.milepost.client;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.google.protobuf.Struct;
import com.google.protobuf.util.JsonFormat;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** A running service that a test drives; see tests/conformance/README.md. */
public final class Service implements AutoCloseable {
  private final Process process;
  private final BufferedWriter input;
  private final BufferedReader output;
  private final Map<String, Object> addresses;
  private final List<Milepost> clients = new ArrayList<>();

  /**
   * Starts a service with these options. It needs the environment of the repository, or another
   * Python in MILEPOST_TEST_PYTHON.
   */
  public Service(String... options) throws IOException {
    List<String> command = new ArrayList<>(List.of(python(), "-m", "tests.conformance.service"));
    command.addAll(List.of(options));
    process =
        new ProcessBuilder(command)
            .directory(root().toFile())
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    input = new BufferedWriter(new OutputStreamWriter(process.getOutputStream(), UTF_8));
    output = new BufferedReader(new InputStreamReader(process.getInputStream(), UTF_8));
    addresses = read();
  }

  static Path root() {
    Path root = Path.of("").toAbsolutePath();
    while (!Files.exists(root.resolve("protos"))) {
      root = root.getParent();
    }
    return root;
  }

  private static String python() {
    String given = System.getenv("MILEPOST_TEST_PYTHON");
    return given != null ? given : root().resolve(".venv/bin/python").toString();
  }

  public String address() {
    return (String) addresses.get("address");
  }

  /** Returns the file of the authority of its certificate, with --tls. */
  Path authority() {
    return Path.of((String) addresses.get("ca_file"));
  }

  /** Performs one command, and returns its result. */
  Map<String, Object> perform(Map<String, Object> command) throws IOException {
    input.write(
        JsonFormat.printer().omittingInsignificantWhitespace().print(Json.toStruct(command)));
    input.newLine();
    input.flush();
    Map<String, Object> result = read();
    if (result.containsKey("error")) {
      throw new IOException(command + ": " + result.get("error"));
    }
    return result;
  }

  void perform(String command) throws IOException {
    perform(Map.of("do", command));
  }

  private Map<String, Object> read() throws IOException {
    String line = output.readLine();
    if (line == null) {
      throw new IOException("the service does not answer");
    }
    Struct.Builder result = Struct.newBuilder();
    JsonFormat.parser().merge(line, result);
    return Json.fromStruct(result.build());
  }

  /** Returns a new API key of a unique subject, granted all functions. */
  public String key(String role) throws IOException {
    String subject = "java-" + UUID.randomUUID();
    List<String> functions = role.equals("WORKER") ? List.of("*") : List.of();
    return (String)
        perform(
                Map.of(
                    "do",
                    "key",
                    "subject",
                    subject,
                    "roles",
                    List.of(role),
                    "functions",
                    functions))
            .get("key");
  }

  /** Returns a client with a key of its own, which is closed with the service. */
  Milepost client(String role) throws IOException {
    return keep(Milepost.builder(address()).apiKey(key(role)).build());
  }

  /** Closes the client with the service. */
  Milepost keep(Milepost client) {
    clients.add(client);
    return client;
  }

  @Override
  public void close() throws Exception {
    clients.forEach(Milepost::close);
    input.close();
    int code = process.waitFor();
    if (code != 0) {
      throw new IOException("the service ended with " + code);
    }
  }

  /** Returns the name of a function that no other test works on. */
  static String uniqueFunction() {
    return "test." + UUID.randomUUID();
  }
}
