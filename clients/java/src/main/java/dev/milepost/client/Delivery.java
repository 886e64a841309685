package dev.milepost.client;

import java.time.Instant;
import java.util.List;
import java.util.Optional;

/**
 * One webhook, for one event of one operation.
 *
 * @param id the webhook-id of every attempt
 * @param operationId the id of the operation
 * @param revision the revision of the operation after the event
 * @param eventType the type of the event
 * @param callbackUrl the URL without its query
 * @param status the status
 * @param createTime the time of the event
 * @param nextAttemptTime the time of the next attempt, while pending
 * @param settleTime the time of the end
 * @param attempts the attempts so far
 */
public record Delivery(
    String id,
    String operationId,
    long revision,
    String eventType,
    String callbackUrl,
    DeliveryStatus status,
    Instant createTime,
    Optional<Instant> nextAttemptTime,
    Optional<Instant> settleTime,
    List<DeliveryAttempt> attempts) {
  static Delivery of(dev.milepost.v1.Delivery message) {
    return new Delivery(
        message.getId(),
        message.getOperationId(),
        message.getRevision(),
        message.getEventType(),
        message.getCallbackUrl(),
        DeliveryStatus.of(message.getStatus()),
        Times.of(message.getCreateTime()),
        message.hasNextAttemptTime()
            ? Optional.of(Times.of(message.getNextAttemptTime()))
            : Optional.empty(),
        message.hasSettleTime() ? Optional.of(Times.of(message.getSettleTime())) : Optional.empty(),
        message.getAttemptsList().stream().map(DeliveryAttempt::of).toList());
  }
}
