package dev.milepost.client;

import com.google.protobuf.Timestamp;
import java.time.Duration;
import java.time.Instant;

/** Times and durations as messages and back. */
final class Times {
  private Times() {}

  static Instant of(Timestamp message) {
    return Instant.ofEpochSecond(message.getSeconds(), message.getNanos());
  }

  static Duration of(com.google.protobuf.Duration message) {
    return Duration.ofSeconds(message.getSeconds(), message.getNanos());
  }

  static Timestamp to(Instant time) {
    return Timestamp.newBuilder()
        .setSeconds(time.getEpochSecond())
        .setNanos(time.getNano())
        .build();
  }

  static com.google.protobuf.Duration to(Duration duration) {
    // A message has the sign of the whole in both fields, a Duration only in its seconds.
    boolean isSplit = duration.isNegative() && duration.getNano() > 0;
    return com.google.protobuf.Duration.newBuilder()
        .setSeconds(isSplit ? duration.getSeconds() + 1 : duration.getSeconds())
        .setNanos(isSplit ? duration.getNano() - 1_000_000_000 : duration.getNano())
        .build();
  }

  /** Returns the sum of two durations, or the longest one if it does not fit. */
  static Duration sum(Duration one, Duration other) {
    try {
      return one.plus(other);
    } catch (ArithmeticException overflow) {
      return Duration.ofSeconds(Long.MAX_VALUE);
    }
  }

  /** Returns the duration in nanoseconds, or the longest one that fits. */
  static long nanos(Duration duration) {
    try {
      return duration.toNanos();
    } catch (ArithmeticException overflow) {
      return duration.isNegative() ? Long.MIN_VALUE / 2 : Long.MAX_VALUE / 2;
    }
  }
}
