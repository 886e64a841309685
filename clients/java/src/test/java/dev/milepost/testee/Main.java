package dev.milepost.testee;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * Performs the commands of the conformance suite with the public client: reads one JSON command a
 * line, and writes one JSON result a line. See tests/conformance/README.md.
 */
public final class Main {
  private static final Gson GSON =
      new GsonBuilder()
          .serializeNulls()
          .disableHtmlEscaping()
          .serializeSpecialFloatingPointValues()
          .create();

  private final PrintStream output;
  private final Map<String, Call> calls = new LinkedHashMap<>();

  Main(OutputStream output) {
    this.output = new PrintStream(output, true, UTF_8);
    Handles handles = new Handles();
    calls.putAll(new ClientCalls(handles).calls());
    calls.putAll(new OperationCalls(handles).calls());
    calls.putAll(new StreamCalls(handles).calls());
    calls.putAll(new WorkCalls(handles).calls());
    calls.putAll(new ReceiverCalls(handles).calls());
    calls.put("bench", Bench::run);
  }

  /** Performs one command. */
  interface Call {
    Object perform(Command command) throws Exception;
  }

  /** A value or a call that Java does not have. */
  static final class UnsupportedException extends Exception {}

  public static void main(String[] arguments) throws IOException {
    new Main(System.out).serve(System.in);
    System.exit(0); // whatever still waits
  }

  Map<String, Call> calls() {
    return calls;
  }

  /** Performs commands concurrently until the input ends. */
  void serve(InputStream input) throws IOException {
    ExecutorService threads = Executors.newCachedThreadPool();
    BufferedReader lines = new BufferedReader(new InputStreamReader(input, UTF_8));
    String line;
    while ((line = lines.readLine()) != null) {
      JsonObject command = JsonParser.parseString(line).getAsJsonObject();
      threads.execute(() -> answer(command));
    }
    threads.shutdownNow();
  }

  private void answer(JsonObject command) {
    Map<String, Object> answer = new LinkedHashMap<>();
    JsonElement id = command.get("id");
    answer.put("id", id);
    try {
      Call call = calls.get(command.get("call").getAsString());
      if (call == null) {
        throw new UnsupportedException();
      }
      answer.put("ok", call.perform(new Command(command)));
    } catch (UnsupportedException unsupported) {
      answer.put("unsupported", true);
    } catch (Throwable problem) {
      answer.put("error", Output.ofError(problem));
    }
    String line = GSON.toJson(answer);
    synchronized (output) {
      output.println(line);
    }
  }
}
