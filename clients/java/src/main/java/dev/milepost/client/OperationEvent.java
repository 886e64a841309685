package dev.milepost.client;

import java.time.Instant;
import java.util.List;
import java.util.Optional;

/**
 * The record of one transition of an operation.
 *
 * @param revision the revision of the operation after the transition
 * @param type the type of the event, such as operation.retrying
 * @param transition the name of the transition, such as retry
 * @param time the time of the transition, by the clock of the database
 * @param actor the subject that made the transition; milepost for the service itself
 * @param attempt the attempt that the transition began, changed or ended
 * @param worker the name of the worker of that attempt
 * @param reason the reason of the transition
 * @param errors the errors of the attempt, if the transition ended it with errors
 */
public record OperationEvent(
    long revision,
    String type,
    String transition,
    Instant time,
    String actor,
    int attempt,
    Optional<String> worker,
    Optional<String> reason,
    List<OperationError> errors) {
  static OperationEvent of(dev.milepost.v1.OperationEvent message) {
    return new OperationEvent(
        message.getRevision(),
        message.getType(),
        message.getTransition(),
        Times.of(message.getTime()),
        message.getActor(),
        message.getAttempt(),
        message.hasWorker() ? Optional.of(message.getWorker()) : Optional.empty(),
        message.hasReason() ? Optional.of(message.getReason()) : Optional.empty(),
        message.getErrorsList().stream().map(OperationError::of).toList());
  }
}
