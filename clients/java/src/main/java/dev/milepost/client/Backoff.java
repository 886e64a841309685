package dev.milepost.client;

import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/**
 * Pauses that grow from try to try: each is about twice the one before, up to a maximum, shortened
 * at random by up to a half, so that clients do not come back together.
 */
final class Backoff {
  /** The bound of the pauses within one call, and between two streams. */
  static final Duration MAX_PAUSE = Duration.ofSeconds(2);

  /** The bound of the pauses of what goes on by itself: waits and the ends of work. */
  static final Duration MAX_LONG_PAUSE = Duration.ofSeconds(5);

  private static final Duration FIRST_PAUSE = Duration.ofMillis(50);

  private final long firstNanos;
  private final long maxNanos;
  private long nextNanos;

  Backoff(Duration max) {
    this(FIRST_PAUSE, max);
  }

  Backoff(Duration first, Duration max) {
    this.firstNanos = first.toNanos();
    this.maxNanos = max.toNanos();
    this.nextNanos = firstNanos;
  }

  /** Begins again with the first pause: the last try was successful. */
  void reset() {
    nextNanos = firstNanos;
  }

  /** Returns the next pause in nanoseconds. */
  long pause() {
    double share = ThreadLocalRandom.current().nextDouble(0.5, 1.0);
    long pause = (long) (nextNanos * share);
    nextNanos = Math.min(2 * nextNanos, maxNanos);
    return pause;
  }

  /** Returns the next pause in nanoseconds, with the one that the error asks for added. */
  long pause(MilepostException error) {
    return pause() + error.retryAfter().map(Times::nanos).orElse(0L);
  }
}
