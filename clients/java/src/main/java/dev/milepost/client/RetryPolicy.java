package dev.milepost.client;

import java.time.Duration;
import java.util.Optional;
import java.util.OptionalDouble;

/**
 * The pauses between the attempts of an operation. What is empty has its default.
 *
 * @param initialBackoff the pause after the first failed attempt: 1 s by default, at most 1 h
 * @param backoffMultiplier the factor between two pauses: 2 by default, from 1 to 10
 * @param maxBackoff the longest pause: 5 min by default, at most 24 h
 */
public record RetryPolicy(
    Optional<Duration> initialBackoff,
    OptionalDouble backoffMultiplier,
    Optional<Duration> maxBackoff) {
  /**
   * Creates a policy.
   *
   * @param initialBackoff the pause after the first failed attempt
   * @param backoffMultiplier the factor between two pauses
   * @param maxBackoff the longest pause
   */
  public RetryPolicy(Duration initialBackoff, double backoffMultiplier, Duration maxBackoff) {
    this(
        Optional.of(initialBackoff), OptionalDouble.of(backoffMultiplier), Optional.of(maxBackoff));
  }

  static RetryPolicy of(dev.milepost.v1.RetryPolicy message) {
    return new RetryPolicy(
        message.hasInitialBackoff()
            ? Optional.of(Times.of(message.getInitialBackoff()))
            : Optional.empty(),
        message.hasBackoffMultiplier()
            ? OptionalDouble.of(message.getBackoffMultiplier())
            : OptionalDouble.empty(),
        message.hasMaxBackoff()
            ? Optional.of(Times.of(message.getMaxBackoff()))
            : Optional.empty());
  }

  dev.milepost.v1.RetryPolicy toMessage() {
    dev.milepost.v1.RetryPolicy.Builder policy = dev.milepost.v1.RetryPolicy.newBuilder();
    initialBackoff.map(Times::to).ifPresent(policy::setInitialBackoff);
    backoffMultiplier.ifPresent(policy::setBackoffMultiplier);
    maxBackoff.map(Times::to).ifPresent(policy::setMaxBackoff);
    return policy.build();
  }
}
