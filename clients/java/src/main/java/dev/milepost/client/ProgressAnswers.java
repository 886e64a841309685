package dev.milepost.client;

import dev.milepost.v1.Acknowledgement;
import dev.milepost.v1.Interruption;
import dev.milepost.v1.StreamProgressResponse;
import dev.milepost.v1.UpdateError;
import io.grpc.Status.Code;
import java.util.Map;

/** Passes what the service says on the stream on to the operations that it is about. */
final class ProgressAnswers {
  private final ProgressStream stream;

  ProgressAnswers(ProgressStream stream) {
    this.stream = stream;
  }

  void take(StreamProgressResponse response) {
    response.getAcknowledgementsList().forEach(this::acknowledge);
    switch (response.getItemCase()) {
      case ACKNOWLEDGEMENT -> acknowledge(response.getAcknowledgement());
      case INTERRUPTION -> interrupt(response.getInterruption());
      case ERROR -> refuse(response.getError());
      case ITEM_NOT_SET -> {} // of a newer service
    }
  }

  private void acknowledge(Acknowledgement item) {
    HeldOperation operation = stream.find(item.getOperationId());
    if (operation == null || (item.getAttempt() != 0 && item.getAttempt() != operation.attempt())) {
      return;
    }
    operation.acknowledge();
    stream.settleAnswer(operation);
  }

  /** Ignores what is certainly about an earlier attempt. */
  private void interrupt(Interruption item) {
    HeldOperation operation = stream.find(item.getOperationId());
    if (operation == null || item.getRevision() <= operation.revision()) {
      return;
    }
    switch (item.getKind()) {
      case INTERRUPTION_KIND_CANCEL_REQUESTED -> {
        if (operation.requestCancel()) {
          stream.enqueue(operation); // a sign of life records that the request was delivered
        }
      }
      case INTERRUPTION_KIND_CANCELLED, INTERRUPTION_KIND_EXPIRED, INTERRUPTION_KIND_LEASE_LOST ->
          operation.refuse(interruption(item));
      case INTERRUPTION_KIND_UNSPECIFIED, UNRECOGNIZED -> {} // what matters will be refused
    }
    stream.settleAnswer(operation);
  }

  private void refuse(UpdateError item) {
    HeldOperation operation = stream.find(item.getOperationId());
    if (operation == null || isAboutAnotherAttempt(item, operation)) {
      return;
    }
    MilepostException error =
        Refusals.typed(
            Refusal.of(Code.UNKNOWN, item.getReason(), item.getMessage(), item.getMetadataMap()));
    if (Disruption.isTemporary(error) || error instanceof StreamFullException) {
      operation.noteRefusal();
      stream.enqueueLater(operation, operation.backoff().pause(error));
    } else {
      operation.refuse(error);
    }
    stream.settleAnswer(operation);
  }

  private static boolean isAboutAnotherAttempt(UpdateError item, HeldOperation operation) {
    String attempt = Integer.toString(operation.attempt());
    return item.getReason().equals("STALE_ATTEMPT")
        && !item.getMetadataMap().getOrDefault("expected", attempt).equals(attempt);
  }

  /** Returns the exception that a later report of the same work would be refused with. */
  private static MilepostException interruption(Interruption item) {
    String id = item.getOperationId();
    return switch (item.getKind()) {
      case INTERRUPTION_KIND_CANCELLED ->
          Refusals.typed(
              Refusal.of(
                  Code.FAILED_PRECONDITION,
                  "ILLEGAL_TRANSITION",
                  "operation " + id + " was cancelled",
                  Map.of("transition", "progress", "status", Status.CANCELLED.name())));
      case INTERRUPTION_KIND_EXPIRED ->
          Refusals.typed(
              Refusal.of(
                  Code.NOT_FOUND,
                  "OPERATION_EXPIRED",
                  "operation " + id + " has expired",
                  Map.of("operation_id", id)));
      default -> staleAttempt(id);
    };
  }

  static MilepostException staleAttempt(String id) {
    return Refusals.typed(
        Refusal.of(
            Code.ABORTED,
            "STALE_ATTEMPT",
            "operation " + id + " is no longer held by this worker",
            Map.of("operation_id", id)));
  }
}
