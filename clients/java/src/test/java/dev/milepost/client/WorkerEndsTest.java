package dev.milepost.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Int32Value;
import java.io.FileNotFoundException;
import java.math.BigInteger;
import java.time.Duration;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;

/** Everything that a handler may return or throw ends its operation once, with its reason. */
class WorkerEndsTest {
  record Frames(int frames, List<String> names) {}

  private static final class Unreadable extends RuntimeException {
    @Override
    public String getMessage() {
      throw new IllegalStateException("in getMessage");
    }

    @Override
    public String toString() {
      throw new IllegalStateException("in toString");
    }
  }

  private static final class TooDeep extends AbstractList<Object> {
    @Override
    @SuppressWarnings("InfiniteRecursion") // on purpose
    public Object get(int index) {
      return get(index);
    }

    @Override
    public int size() {
      return 1;
    }
  }

  private static final class BadFacts extends PermanentFailure {
    BadFacts() {
      super("m");
    }

    @Override
    public Map<String, Object> details() {
      throw new StackOverflowError("in details");
    }
  }

  private static final class BadDelay extends RetryLater {
    BadDelay() {
      super(Duration.ofMinutes(1), "m");
    }

    @Override
    public Duration delay() {
      throw new IllegalStateException("in delay");
    }
  }

  /** Interrupts its own thread before it goes on. */
  private static Handler interrupts(Handler then) {
    return work -> {
      Thread.currentThread().interrupt();
      return then.handle(work);
    };
  }

  private static Handler cancelsItsFuture(boolean isAwaited) {
    return work -> {
      CompletableFuture<Object> future = new CompletableFuture<>();
      future.cancel(true);
      return isAwaited ? future.get() : future;
    };
  }

  private static Handler flushes() {
    return work -> {
      work.progress(0.5);
      work.flush();
      return "not interrupted";
    };
  }

  private static Handler returns(Object value) {
    return work -> value;
  }

  private static Handler fails(Throwable problem) {
    return work -> {
      WorkerEndsTest.<Exception>throwAny(problem);
      return null;
    };
  }

  @SuppressWarnings("unchecked") // E is erased
  static <E extends Throwable> void throwAny(Throwable problem) throws E {
    throw (E) problem;
  }

  @SuppressWarnings("InfiniteRecursion") // on purpose
  private static int overflow(int depth) {
    return overflow(depth + 1) + 1;
  }

  private static List<Object> cycle() {
    List<Object> list = new ArrayList<>();
    list.add(list);
    return list;
  }

  private static Map<Handler, String> ends() {
    Map<Handler, String> ends = new LinkedHashMap<>();
    ends.put(returns(new Frames(7, List.of("a"))), "COMPLETED {frames=7.0, names=[a]}");
    ends.put(returns(new int[] {1, 2}), "COMPLETED [1.0, 2.0]");
    ends.put(returns(null), "COMPLETED nothing");
    ends.put(returns(Payload.NULL), "COMPLETED null");
    ends.put(returns(Int32Value.of(7)), "COMPLETED type.googleapis.com/google.protobuf.Int32Value");
    ends.put(fails(new IllegalStateException("broken")), "FAILED IllegalStateException: broken");
    ends.put(fails(new FileNotFoundException("x")), "FAILED FileNotFoundException: x");
    ends.put(
        fails(new RuntimeException() {}), "FAILED RuntimeException: RuntimeException without a");
    ends.put(fails(new RuntimeException("a\0b\ud800")), "FAILED RuntimeException: a\\x00b\\ud800");
    ends.put(fails(new PermanentFailure("m").withCode("CODEC")), "FAILED CODEC: m");
    ends.put(fails(new PermanentFailure("m")), "FAILED PermanentFailure: m");
    ends.put(fails(new Unreadable()), "FAILED Unreadable: Unreadable without a readable text");
    ends.put(fails(new OutOfMemoryError("no space")), "FAILED OutOfMemoryError: no space");
    ends.put(fails(new AssertionError("a defect")), "FAILED AssertionError: a defect");
    ends.put(work -> overflow(0), "FAILED StackOverflowError: ");
    ends.put(work -> new long[Integer.MAX_VALUE][], "FAILED OutOfMemoryError: ");
    ends.put(fails(new InterruptedException("of its own")), "FAILED InterruptedException: of its");
    ends.put(interrupts(returns("good")), "COMPLETED good");
    ends.put(interrupts(fails(new RuntimeException("x"))), "FAILED RuntimeException: x");
    ends.put(interrupts(fails(new StackOverflowError("x"))), "FAILED StackOverflowError: x");
    ends.put(interrupts(returns(new Object())), "FAILED UnstorableResult: ");
    ends.put(interrupts(fails(new AcknowledgeCancellation())), "FAILED CancellationNotReq");
    ends.put(
        interrupts(
            work -> {
              Thread.sleep(60_000);
              return null;
            }),
        "FAILED InterruptedException: ");
    ends.put(interrupts(flushes()), "FAILED InterruptedException: ");
    ends.put(cancelsItsFuture(true), "FAILED CancellationException: ");
    ends.put(cancelsItsFuture(false), "FAILED UnstorableResult: ");
    ends.put(fails(new Throwable("plain")), "FAILED Throwable: plain");
    ends.put(fails(new WorkerStoppedException()), "FAILED WorkerStoppedException: ");
    ends.put(fails(new BadFacts()), "FAILED InvalidError: The error was refused: in details");
    ends.put(fails(new BadDelay()), "FAILED InvalidError: The error was refused: in delay");
    ends.put(
        returns(new Object()), "FAILED UnstorableResult: the result cannot be stored: a java.lang");
    ends.put(returns(Double.NaN), "FAILED UnstorableResult: the result cannot be stored: NaN");
    ends.put(
        returns(cycle()),
        "FAILED UnstorableResult: the result cannot be stored: the value is nested");
    ends.put(
        returns(new TooDeep()),
        "FAILED UnstorableResult: the result cannot be stored: the result can");
    ends.put(
        returns("\ud800"), "FAILED UnstorableResult: the result cannot be stored: a text holds");
    ends.put(
        returns(BigInteger.TWO.pow(53).add(BigInteger.ONE)),
        "FAILED UnstorableResult: the result cannot be stored: ");
    ends.put(
        returns("x".repeat((1 << 20) + 100)),
        "FAILED UnstorableResult: the result cannot be stored: ");
    ends.put(
        returns("x".repeat(5 << 20)), "FAILED UnstorableResult: the result cannot be stored: ");
    ends.put(
        fails(new PermanentFailure("m").withDetails(Map.of("x", Double.POSITIVE_INFINITY))),
        "FAILED InvalidError: The error was refused: Infinity has no place in JSON");
    ends.put(
        fails(new PermanentFailure("m").withDetails(Map.of("x", new TooDeep()))),
        "FAILED InvalidError: The error was refused: StackOverflowError");
    ends.put(
        fails(
            new PermanentFailure("m") {
              @Override
              public Map<String, Object> details() {
                throw new IllegalStateException("in details");
              }
            }),
        "FAILED InvalidError: The error was refused: in details");
    ends.put(
        fails(
            new RetryLater(Duration.ZERO, "m") {
              @Override
              public Duration delay() {
                return null;
              }
            }),
        "FAILED InvalidError: The error was refused: ");
    ends.put(
        fails(new PermanentFailure("x".repeat(3 << 20)).withCode("y".repeat(300))), "FAILED yyyy");
    return ends;
  }

  private static String found(Operation operation) {
    String outcome =
        operation.status() == Status.COMPLETED
            ? operation.result().map(Payload::toString).orElse("nothing")
            : operation.errors().get(0).code() + ": " + operation.errors().get(0).message();
    return operation.status() + " " + outcome;
  }

  @Test
  void everyHandlerEndsItsOperationOnce() throws Exception {
    Map<Handler, String> ends = ends();
    try (Service service = new Service()) {
      Milepost alice = service.client("CALLER");
      WorkerBuilder worker = Worker.builder(service.client("WORKER")).concurrency(50);
      Map<String, String> wanted = new LinkedHashMap<>();
      for (Map.Entry<Handler, String> end : ends.entrySet()) {
        String function = Service.uniqueFunction();
        worker.handle(function, end.getKey());
        wanted.put(alice.create(function, new CreateOptions().maxAttempts(1)).id(), end.getValue());
      }
      try (RunningWorker running = new RunningWorker(worker)) {
        for (Map.Entry<String, String> each : wanted.entrySet()) {
          Operation operation = alice.await(each.getKey(), Duration.ofMinutes(1));
          String found = found(operation);
          assertTrue(found.startsWith(each.getValue()), () -> each.getValue() + " is " + found);
          assertEquals(1, operation.attempt());
          assertTrue(operation.errors().size() <= 1);
        }
      }
    }
  }
}
