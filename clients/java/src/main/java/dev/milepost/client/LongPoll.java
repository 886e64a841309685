package dev.milepost.client;

import java.time.Duration;
import java.util.function.Function;

/** The wait for the end of an operation: the service answers when it has ended. */
final class LongPoll {
  /** The bound of one call. The next one follows at once. */
  private static final long MAX_WAIT_NANOS = Duration.ofSeconds(50).toNanos();

  private LongPoll() {}

  /**
   * Returns the operation at its end, or as it stands when the timeout has passed.
   *
   * <p>A limit that is reached meanwhile only delays the next call, until the service allows it.
   */
  static Operation untilTerminal(Function<Duration, Operation> wait, Duration timeout) {
    long end = System.nanoTime() + Times.nanos(timeout);
    long begun = System.nanoTime();
    long asked = share(end);
    Operation operation = wait.apply(Duration.ofNanos(asked));
    Backoff backoff = new Backoff(Backoff.MAX_LONG_PAUSE);
    while (!operation.status().isTerminal() && left(end) > 0) {
      if (System.nanoTime() - begun < asked / 2) { // an early answer: of a service that stops
        Calls.sleep(Math.min(backoff.pause(), left(end)));
      }
      begun = System.nanoTime();
      asked = share(end);
      try {
        operation = wait.apply(Duration.ofNanos(asked));
      } catch (LimitReachedException limit) {
        Calls.sleep(Math.min(backoff.pause(limit), left(end)));
      }
    }
    return operation;
  }

  private static long left(long end) {
    return Math.max(0, end - System.nanoTime());
  }

  private static long share(long end) {
    return Math.min(left(end), MAX_WAIT_NANOS);
  }
}
