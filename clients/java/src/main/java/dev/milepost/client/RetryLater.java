package dev.milepost.client;

import java.time.Duration;
import java.util.Objects;

/**
 * A failure that another attempt may change, after a time that the handler knows. Thrown by a
 * {@link Handler}. It counts as a failed attempt, and the delay replaces the pause of the retry
 * policy.
 */
public class RetryLater extends RuntimeException {
  private final Duration delay;

  /**
   * Creates a failure with a text.
   *
   * @param delay the time until the next attempt, at most 24 h
   * @param message the text
   */
  public RetryLater(Duration delay, String message) {
    super(message);
    this.delay = Objects.requireNonNull(delay);
  }

  /**
   * Creates a failure with a cause.
   *
   * @param delay the time until the next attempt, at most 24 h
   * @param message the text
   * @param cause the cause
   */
  public RetryLater(Duration delay, String message, Throwable cause) {
    super(message, cause);
    this.delay = Objects.requireNonNull(delay);
  }

  /** {@return the time until the next attempt} */
  public Duration delay() {
    return delay;
  }
}
