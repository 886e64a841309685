package dev.milepost.testee;

import dev.milepost.client.AcknowledgeCancellation;
import dev.milepost.client.Milepost;
import dev.milepost.client.PermanentFailure;
import dev.milepost.client.RetryLater;
import dev.milepost.client.Work;
import dev.milepost.client.Worker;
import dev.milepost.client.WorkerBuilder;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The calls of a worker, whose handlers wait for commands. */
final class WorkCalls {
  private final Handles handles;

  WorkCalls(Handles handles) {
    this.handles = handles;
  }

  /** A running worker. */
  private static final class Running {
    private final BlockingQueue<Current> begun = new LinkedBlockingQueue<>();
    private final CompletableFuture<Void> end = new CompletableFuture<>();
    private Worker worker;

    /** Waits for the command that ends the work, or for its interruption. */
    Object handle(Work work) throws Exception {
      Current current = new Current(work, new CompletableFuture<>());
      begun.add(current);
      return current.end().get().call();
    }

    void run() {
      try {
        worker.run();
        end.complete(null);
      } catch (RuntimeException problem) {
        end.completeExceptionally(problem);
      }
    }

    void awaitEnd() throws Exception {
      try {
        end.get();
      } catch (ExecutionException problem) {
        throw (Exception) problem.getCause();
      }
    }
  }

  /** The work of one handler, and its end. */
  private record Current(Work work, CompletableFuture<Callable<Object>> end) {}

  Map<String, Main.Call> calls() {
    Map<String, Main.Call> calls = new LinkedHashMap<>();
    calls.put("worker_start", this::start);
    calls.put("worker_next", this::next);
    calls.put("worker_stop", this::stop);
    calls.put("work_progress", this::progress);
    calls.put("work_state", this::state);
    calls.put("work_return", this::succeed);
    calls.put("work_throw", this::fail);
    return calls;
  }

  private Running running(Command command) {
    return handles.take(Running.class, command.text("worker"));
  }

  private Current current(Command command) {
    return handles.take(Current.class, command.text("work"));
  }

  private Object start(Command command) {
    Milepost client = handles.take(ClientCalls.Connection.class, command.text("client")).client();
    Running running = new Running();
    WorkerBuilder builder = Worker.builder(client);
    command.texts("functions").forEach(function -> builder.handle(function, running::handle));
    command.withInt("concurrency", builder::concurrency);
    command.withText("name", builder::name);
    command.withDuration("lease", builder::lease);
    command.withDuration("grace", builder::grace);
    running.worker = builder.build();
    Thread thread = new Thread(running::run);
    thread.setDaemon(true);
    thread.start();
    return Map.of("worker", handles.put(running));
  }

  private Object next(Command command) throws Exception {
    Running running = running(command);
    Current current = null;
    while ((current = running.begun.poll(20, TimeUnit.MILLISECONDS)) == null) {
      if (running.end.isDone()) {
        running.awaitEnd();
        throw new IllegalStateException("the worker has ended");
      }
    }
    Map<String, Object> answer = new LinkedHashMap<>();
    answer.put("work", handles.put(current));
    answer.put("operation", Output.ofOperation(current.work().operation()));
    current
        .work()
        .checkpoint()
        .ifPresent(checkpoint -> answer.put("checkpoint", Output.ofPayload(checkpoint)));
    return answer;
  }

  private Object stop(Command command) throws Exception {
    Running running = running(command);
    running.worker.stop();
    running.awaitEnd();
    return Map.of();
  }

  private Object progress(Command command) {
    current(command).work().report(OperationCalls.report(command));
    return Map.of();
  }

  private Object state(Command command) {
    Work work = current(command).work();
    Map<String, Object> state = new LinkedHashMap<>();
    state.put("stopped", work.reason().map(Output::className).orElse(null));
    state.put("cancel_requested", work.isCancelRequested());
    return state;
  }

  private Object succeed(Command command) {
    Object result = command.payload("result");
    current(command).end().complete(() -> result);
    return Map.of();
  }

  private Object fail(Command command) {
    RuntimeException problem = problem(command);
    current(command)
        .end()
        .complete(
            () -> {
              throw problem;
            });
    return Map.of();
  }

  private static RuntimeException problem(Command command) {
    String message = command.text("message");
    return switch (command.text("kind")) {
      case "permanent" -> new PermanentFailure(message).withCode(command.text("code"));
      case "retry_later" ->
          new RetryLater(command.has("delay") ? command.duration("delay") : Duration.ZERO, message);
      case "acknowledge" -> new AcknowledgeCancellation();
      default -> new RuntimeException(message);
    };
  }
}
