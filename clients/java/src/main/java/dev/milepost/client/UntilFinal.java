package dev.milepost.client;

import java.time.Duration;
import java.util.function.Supplier;

/** The repetition of a request, which has the same request id every time, until it is final. */
final class UntilFinal {
  /** The tries that may meet a defect of the service, which is not likely to pass. */
  private static final int MAX_DEFECTS = 5;

  /** How long unexplained refusals in a row count as temporary. */
  private static final Duration UNEXPLAINED_TIMEOUT = Duration.ofMinutes(5);

  /** The size above which a limit without a reason is that of the size of a message. */
  private static final int LARGE_BYTES = 1 << 20;

  private final long end;
  private final boolean isLarge;
  private final Backoff backoff = new Backoff(Backoff.MAX_LONG_PAUSE);
  private int defects;
  private long unexplainedEnd = Long.MAX_VALUE;

  private UntilFinal(Duration timeout, int size) {
    end = Clock.after(timeout);
    isLarge = size > LARGE_BYTES;
  }

  /**
   * Returns the answer to a request that is sent again after every temporary refusal.
   *
   * @param timeout the time after which a temporary refusal is final too
   * @param size the size of the request in bytes
   */
  static <T> T send(Duration timeout, int size, Supplier<T> request) {
    UntilFinal repetition = new UntilFinal(timeout, size);
    while (true) {
      try {
        return request.get();
      } catch (MilepostException error) {
        Calls.sleep(repetition.pause(error));
      }
    }
  }

  /** Returns the pause before the next try, or throws a final refusal. */
  private long pause(MilepostException error) {
    boolean isDefect = error instanceof InternalException && !error.reason().isEmpty();
    defects += isDefect ? 1 : 0;
    long now = Clock.now();
    unexplainedEnd =
        Disruption.isUnexplained(error)
            ? Math.min(unexplainedEnd, now + UNEXPLAINED_TIMEOUT.toNanos())
            : Long.MAX_VALUE;
    long pause = backoff.pause(error);
    boolean isTooLarge = isLarge && Disruption.isVagueLimit(error);
    boolean isLate = now + pause > Math.min(end, unexplainedEnd);
    if (!Disruption.isTemporary(error) || defects > MAX_DEFECTS || isTooLarge || isLate) {
      throw error;
    }
    return pause;
  }
}
