package dev.milepost.client;

import java.time.Duration;

/**
 * The monotonic clock, in nanoseconds since the class was loaded, so that times can be compared.
 */
final class Clock {
  private static final long BEGIN = System.nanoTime();

  private Clock() {}

  static long now() {
    return System.nanoTime() - BEGIN;
  }

  /** Returns the time after the duration; the end of time for a very long one. */
  static long after(Duration duration) {
    return now() + Math.min(Times.nanos(duration), Long.MAX_VALUE / 2);
  }
}
