package dev.milepost.client;

import java.time.Duration;
import java.time.Instant;
import java.util.Optional;
import java.util.OptionalInt;

/**
 * One attempt to send a webhook.
 *
 * @param number the number of the attempt, from 1
 * @param startTime its start
 * @param duration its length
 * @param statusCode the status of the answer
 * @param error the reason why it failed
 */
public record DeliveryAttempt(
    int number,
    Instant startTime,
    Duration duration,
    OptionalInt statusCode,
    Optional<String> error) {
  static DeliveryAttempt of(dev.milepost.v1.DeliveryAttempt message) {
    return new DeliveryAttempt(
        message.getNumber(),
        Times.of(message.getStartTime()),
        Times.of(message.getDuration()),
        message.hasStatusCode() ? OptionalInt.of(message.getStatusCode()) : OptionalInt.empty(),
        message.hasError() ? Optional.of(message.getError()) : Optional.empty());
  }
}
