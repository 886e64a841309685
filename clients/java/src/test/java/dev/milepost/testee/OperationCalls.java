package dev.milepost.testee;

import dev.milepost.client.CancelOptions;
import dev.milepost.client.ChangeOptions;
import dev.milepost.client.ClaimOptions;
import dev.milepost.client.CreateOptions;
import dev.milepost.client.DeleteOptions;
import dev.milepost.client.FailOptions;
import dev.milepost.client.Milepost;
import dev.milepost.client.Operation;
import dev.milepost.client.OperationError;
import dev.milepost.client.Payload;
import dev.milepost.client.ReleaseOptions;
import dev.milepost.client.Report;
import dev.milepost.client.RetryPolicy;
import dev.milepost.client.StartOptions;
import dev.milepost.client.UniqueKeyPolicy;
import dev.milepost.client.WorkerCalls;
import dev.milepost.client.WriteOptions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;

/** The calls that have one answer. */
final class OperationCalls {
  private final Handles handles;

  OperationCalls(Handles handles) {
    this.handles = handles;
  }

  Map<String, Main.Call> calls() {
    Map<String, Main.Call> calls = new LinkedHashMap<>();
    calls.put("create", command -> Output.ofOperation(create(command)));
    calls.put("get", command -> Output.ofOperation(client(command).get(id(command))));
    calls.put("wait", command -> Output.ofOperation(await(command)));
    calls.put("result", this::result);
    calls.put("cancel", command -> Output.ofOperation(cancel(command)));
    calls.put("delete", this::delete);
    calls.put("claim", this::claim);
    calls.put("start", command -> Output.ofOperation(start(command)));
    calls.put("update_progress", command -> Output.ofOperation(updateProgress(command)));
    calls.put("complete", command -> Output.ofOperation(complete(command)));
    calls.put("fail", command -> Output.ofOperation(fail(command)));
    calls.put("release", command -> Output.ofOperation(release(command)));
    calls.put("acknowledge_cancellation", command -> Output.ofOperation(acknowledge(command)));
    return calls;
  }

  private Milepost client(Command command) {
    return handles.take(ClientCalls.Connection.class, command.text("client")).client();
  }

  private WorkerCalls worker(Command command) {
    return client(command).workerCalls();
  }

  private static String id(Command command) {
    return command.text("operation_id");
  }

  private Operation create(Command command) {
    CreateOptions options = new CreateOptions();
    command.withText("version", options::version);
    if (command.has("metadata")) {
      options.metadata(command.members("metadata"));
    }
    command.withText("request_id", options::requestId);
    command.withText("original_request_id", options::originalRequestId);
    command.withText("callback_url", options::callbackUrl);
    options.callbackEvents(command.texts("callback_events"));
    command.withDuration("ttl", options::ttl);
    command.withDuration("retry_after", options::retryAfter);
    command.withInt("max_attempts", options::maxAttempts);
    if (command.has("retry_policy")) {
      options.retryPolicy(retryPolicy(command.object("retry_policy")));
    }
    command.withDuration("queue_timeout", options::queueTimeout);
    command.withDuration("run_timeout", options::runTimeout);
    command.withTime("schedule_time", options::scheduleTime);
    command.withInt("priority", options::priority);
    command.withText("unique_key", options::uniqueKey);
    command.withText(
        "unique_key_policy", name -> options.uniqueKeyPolicy(UniqueKeyPolicy.valueOf(name)));
    return client(command).create(command.text("function"), options);
  }

  private static RetryPolicy retryPolicy(Command command) {
    OptionalDouble multiplier =
        command.has("backoff_multiplier")
            ? OptionalDouble.of(command.arguments().get("backoff_multiplier").getAsDouble())
            : OptionalDouble.empty();
    return new RetryPolicy(
        Optional.ofNullable(command.duration("initial_backoff")),
        multiplier,
        Optional.ofNullable(command.duration("max_backoff")));
  }

  private Operation await(Command command) {
    Duration timeout = command.duration("timeout");
    return timeout == null
        ? client(command).await(id(command))
        : client(command).await(id(command), timeout);
  }

  private Object result(Command command) {
    Duration timeout = command.duration("timeout");
    Optional<Payload> result =
        timeout == null
            ? client(command).result(id(command))
            : client(command).result(id(command), timeout);
    Map<String, Object> answer = new LinkedHashMap<>();
    result.ifPresent(payload -> answer.put("result", Output.ofPayload(payload)));
    return answer;
  }

  private Operation cancel(Command command) {
    CancelOptions options = change(command, new CancelOptions());
    command.withText("reason", options::reason);
    command.withDuration("grace", options::grace);
    return client(command).cancel(id(command), options);
  }

  private Object delete(Command command) {
    client(command).delete(id(command), change(command, new DeleteOptions()));
    return Map.of();
  }

  private static <S extends ChangeOptions<S>> S change(Command command, S options) {
    command.withText("request_id", options::requestId);
    command.withLong("expected_revision", options::expectedRevision);
    return options;
  }

  private static WriteOptions write(Command command) {
    WriteOptions options = change(command, new WriteOptions());
    command.withInt("attempt", options::attempt);
    return options;
  }

  static Report report(Command command) {
    Report report = new Report();
    command.withDouble("progress", report::progress);
    command.withText("message", report::message);
    return report.checkpoint(command.payload("checkpoint"));
  }

  private Object claim(Command command) throws ReflectiveOperationException {
    ClaimOptions options = new ClaimOptions();
    command.withInt("max_operations", options::maxOperations);
    command.withDuration("lease", options::lease);
    command.withText("worker", options::worker);
    command.withDuration("timeout", options::timeout);
    List<Object> claimed = new ArrayList<>();
    for (Operation operation : worker(command).claim(command.texts("functions"), options)) {
      claimed.add(Output.ofOperation(operation));
    }
    return Map.of("operations", claimed);
  }

  private Operation start(Command command) {
    StartOptions options = change(command, new StartOptions());
    command.withText("worker", options::worker);
    command.withDouble("progress", options::progress);
    return worker(command).start(id(command), options);
  }

  private Operation updateProgress(Command command) {
    return worker(command).updateProgress(id(command), report(command), write(command));
  }

  private Operation complete(Command command) {
    return worker(command).complete(id(command), command.payload("result"), write(command));
  }

  private Operation fail(Command command) {
    FailOptions options = change(command, new FailOptions());
    command.withInt("attempt", options::attempt);
    if (command.isTrue("retryable")) {
      options.retryable();
    }
    command.withDuration("retry_delay", options::retryDelay);
    List<OperationError> errors =
        command.objects("errors").stream().map(OperationCalls::error).toList();
    return worker(command).fail(id(command), errors, options);
  }

  private static OperationError error(Command command) {
    return new OperationError(
        command.text("code"),
        command.text("message"),
        Optional.ofNullable(command.text("source")),
        command.has("details") ? command.members("details") : Map.of());
  }

  private Operation release(Command command) {
    ReleaseOptions options = change(command, new ReleaseOptions());
    command.withInt("attempt", options::attempt);
    command.withDuration("delay", options::delay);
    command.withText("reason", options::reason);
    return worker(command).release(id(command), options);
  }

  private Operation acknowledge(Command command) {
    return worker(command).acknowledgeCancellation(id(command), write(command));
  }
}
