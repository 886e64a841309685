package dev.milepost.client;

import java.io.Serializable;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;

/**
 * One piece of work, in the state that was read. It is immutable.
 *
 * <p>A list leaves out metadata, result, errors and the checkpoint unless it is asked for them, and
 * so do answers to progress.
 */
public final class Operation implements Serializable {
  private final dev.milepost.v1.Operation message;
  private final boolean isReplayed;
  private final boolean isJoined;

  private Operation(dev.milepost.v1.Operation message, boolean isReplayed, boolean isJoined) {
    this.message = message;
    this.isReplayed = isReplayed;
    this.isJoined = isJoined;
  }

  static Operation of(dev.milepost.v1.Operation message) {
    return new Operation(message, false, false);
  }

  static Operation of(dev.milepost.v1.Operation message, boolean isReplayed) {
    return new Operation(message, isReplayed, false);
  }

  static Operation of(dev.milepost.v1.Operation message, boolean isReplayed, boolean isJoined) {
    return new Operation(message, isReplayed, isJoined);
  }

  /** {@return the unique identifier} */
  public String id() {
    return message.getId();
  }

  /** {@return the name of the function that does the work} */
  public String function() {
    return message.getFunction();
  }

  /** {@return the version of the function, if the caller gave one} */
  public Optional<String> version() {
    return message.hasVersion() ? Optional.of(message.getVersion()) : Optional.empty();
  }

  /** {@return the subject that created the operation} */
  public String owner() {
    return message.getOwner();
  }

  /** {@return the data of the caller; empty without any} */
  public Map<String, Object> metadata() {
    return Json.fromStruct(message.getMetadata());
  }

  /** {@return the id of the request behind the operation, if the caller gave one} */
  public Optional<String> originalRequestId() {
    return message.hasOriginalRequestId()
        ? Optional.of(message.getOriginalRequestId())
        : Optional.empty();
  }

  /** {@return the URL that receives webhooks, without its query; only its owner sees it} */
  public Optional<String> callbackUrl() {
    return message.hasCallbackUrl() ? Optional.of(message.getCallbackUrl()) : Optional.empty();
  }

  /** {@return the status} */
  public Status status() {
    return Status.of(message.getStatus());
  }

  /** {@return the completed share of the work, from 0.0 to 1.0; empty until the first report} */
  public OptionalDouble progress() {
    return message.hasProgress()
        ? OptionalDouble.of(message.getProgress())
        : OptionalDouble.empty();
  }

  /** {@return the present step of the work, if it gave one} */
  public Optional<String> progressMessage() {
    return message.hasProgressMessage()
        ? Optional.of(message.getProgressMessage())
        : Optional.empty();
  }

  /** {@return the result; empty if the worker sent none} */
  public Optional<Payload> result() {
    return message.hasResult() ? Optional.of(Payload.of(message.getResult())) : Optional.empty();
  }

  /** {@return the reasons of the failure} */
  public List<OperationError> errors() {
    return message.getErrorsList().stream().map(OperationError::of).toList();
  }

  /** {@return the number of transitions} */
  public long revision() {
    return message.getRevision();
  }

  /** {@return the number of starts} */
  public int attempt() {
    return message.getAttempt();
  }

  /** {@return the maximum number of failed attempts} */
  public int maxAttempts() {
    return message.getMaxAttempts();
  }

  /** {@return the number of attempts that ended badly} */
  public int failedAttempts() {
    return message.getFailedAttempts();
  }

  /** {@return the name of the worker, if the worker gave one} */
  public Optional<String> worker() {
    return message.hasWorker() ? Optional.of(message.getWorker()) : Optional.empty();
  }

  /** {@return the priority among the operations of the owner, from 0 to 9} */
  public int priority() {
    return message.getPriority();
  }

  /**
   * {@return the key that at most one active operation of the owner has, if the caller gave one}
   */
  public Optional<String> uniqueKey() {
    return message.hasUniqueKey() ? Optional.of(message.getUniqueKey()) : Optional.empty();
  }

  /** {@return the pauses between the attempts} */
  public RetryPolicy retryPolicy() {
    return RetryPolicy.of(message.getRetryPolicy());
  }

  /** {@return the state that a worker saved for the next attempt, if there is one} */
  public Optional<Payload> checkpoint() {
    return message.hasCheckpoint()
        ? Optional.of(Payload.of(message.getCheckpoint()))
        : Optional.empty();
  }

  /** {@return the reason of the cancel, or of the request to cancel, if one was given} */
  public Optional<String> cancelReason() {
    return message.hasCancelReason() ? Optional.of(message.getCancelReason()) : Optional.empty();
  }

  /**
   * {@return the trace that created the operation, if sampled, as the header of W3C Trace Context}
   */
  public Optional<String> traceparent() {
    return message.hasTraceparent() ? Optional.of(message.getTraceparent()) : Optional.empty();
  }

  /** {@return the retention period} */
  public Duration ttl() {
    return Times.of(message.getTtl());
  }

  /** {@return the suggested pause between polls} */
  public Duration retryAfter() {
    return Times.of(message.getRetryAfter());
  }

  /** {@return the maximum time without a worker, if the caller set one} */
  public Optional<Duration> queueTimeout() {
    return message.hasQueueTimeout()
        ? Optional.of(Times.of(message.getQueueTimeout()))
        : Optional.empty();
  }

  /** {@return the maximum duration of one attempt, if the caller set one} */
  public Optional<Duration> runTimeout() {
    return message.hasRunTimeout()
        ? Optional.of(Times.of(message.getRunTimeout()))
        : Optional.empty();
  }

  /** {@return the time of the creation} */
  public Instant createTime() {
    return Times.of(message.getCreateTime());
  }

  /**
   * {@return the time before which the first attempt cannot be claimed, if the caller chose one}
   */
  public Optional<Instant> scheduleTime() {
    return message.hasScheduleTime()
        ? Optional.of(Times.of(message.getScheduleTime()))
        : Optional.empty();
  }

  /** {@return the time before which a pending operation cannot be claimed, while there is one} */
  public Optional<Instant> nextAttemptTime() {
    return message.hasNextAttemptTime()
        ? Optional.of(Times.of(message.getNextAttemptTime()))
        : Optional.empty();
  }

  /** {@return the start of the present attempt; empty while pending} */
  public Optional<Instant> startTime() {
    return message.hasStartTime()
        ? Optional.of(Times.of(message.getStartTime()))
        : Optional.empty();
  }

  /** {@return the time of the last report, if there was one} */
  public Optional<Instant> progressTime() {
    return message.hasProgressTime()
        ? Optional.of(Times.of(message.getProgressTime()))
        : Optional.empty();
  }

  /** {@return the time at which the operation was completed or failed, after that} */
  public Optional<Instant> completeTime() {
    return message.hasCompleteTime()
        ? Optional.of(Times.of(message.getCompleteTime()))
        : Optional.empty();
  }

  /** {@return the time at which the operation was cancelled, after that} */
  public Optional<Instant> cancelTime() {
    return message.hasCancelTime()
        ? Optional.of(Times.of(message.getCancelTime()))
        : Optional.empty();
  }

  /** {@return the time at which a cancel with a grace was requested, after that} */
  public Optional<Instant> cancelRequestTime() {
    return message.hasCancelRequestTime()
        ? Optional.of(Times.of(message.getCancelRequestTime()))
        : Optional.empty();
  }

  /** {@return the time at which the worker knew of the requested cancel, after that} */
  public Optional<Instant> cancelDeliveredTime() {
    return message.hasCancelDeliveredTime()
        ? Optional.of(Times.of(message.getCancelDeliveredTime()))
        : Optional.empty();
  }

  /** {@return the end of the grace of a requested cancel, until then} */
  public Optional<Instant> cancelExpireTime() {
    return message.hasCancelExpireTime()
        ? Optional.of(Times.of(message.getCancelExpireTime()))
        : Optional.empty();
  }

  /** {@return the end of the lease of the worker, after a claim} */
  public Optional<Instant> leaseExpireTime() {
    return message.hasLeaseExpireTime()
        ? Optional.of(Times.of(message.getLeaseExpireTime()))
        : Optional.empty();
  }

  /** {@return the end of the queue timeout, while pending} */
  public Optional<Instant> queueExpireTime() {
    return message.hasQueueExpireTime()
        ? Optional.of(Times.of(message.getQueueExpireTime()))
        : Optional.empty();
  }

  /** {@return the end of the run timeout, while processing} */
  public Optional<Instant> runExpireTime() {
    return message.hasRunExpireTime()
        ? Optional.of(Times.of(message.getRunExpireTime()))
        : Optional.empty();
  }

  /** {@return the time at which the operation expires} */
  public Instant expireTime() {
    return Times.of(message.getExpireTime());
  }

  /** {@return the time by which the next step must happen, while active} */
  public Optional<Instant> nextStepDeadline() {
    return message.hasNextStepDeadline()
        ? Optional.of(Times.of(message.getNextStepDeadline()))
        : Optional.empty();
  }

  /**
   * Returns the step that the operation requires next.
   *
   * @return the step, while the operation is active
   */
  public Optional<NextStep> nextStep() {
    return NextStep.of(message.getNextStep());
  }

  /**
   * Returns true if the call changed nothing, because an earlier one with the same request id did.
   *
   * @return true after a repeated call
   */
  public boolean isReplayed() {
    return isReplayed;
  }

  /**
   * Returns true if a create met an active operation with the same unique key.
   *
   * @return true if another call created the operation
   */
  public boolean isJoined() {
    return isJoined;
  }

  /**
   * Returns the message that was read, with fields that this client may not know.
   *
   * @return the message
   */
  public dev.milepost.v1.Operation message() {
    return message;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Operation that
        && message.equals(that.message)
        && isReplayed == that.isReplayed
        && isJoined == that.isJoined;
  }

  @Override
  public int hashCode() {
    return message.hashCode();
  }

  @Override
  public String toString() {
    return "Operation[" + id() + ", " + function() + ", " + status() + "]";
  }
}
