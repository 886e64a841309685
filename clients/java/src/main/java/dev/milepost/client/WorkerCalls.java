package dev.milepost.client;

import com.google.protobuf.Any;
import dev.milepost.v1.AcknowledgeCancellationRequest;
import dev.milepost.v1.AcknowledgeCancellationResponse;
import dev.milepost.v1.ClaimOperationsRequest;
import dev.milepost.v1.CompleteOperationRequest;
import dev.milepost.v1.CompleteOperationResponse;
import dev.milepost.v1.FailOperationRequest;
import dev.milepost.v1.FailOperationResponse;
import dev.milepost.v1.ReleaseOperationResponse;
import dev.milepost.v1.StartOperationResponse;
import dev.milepost.v1.UpdateProgressRequest;
import dev.milepost.v1.UpdateProgressResponse;
import dev.milepost.v1.WorkerServiceGrpc;
import java.time.Duration;
import java.util.Collection;
import java.util.List;

/** The calls of a worker of your own. A {@link Worker} makes them by itself. */
public final class WorkerCalls {
  private final Calls calls;
  private final Duration timeout;

  WorkerCalls(Calls calls) {
    this(calls, calls.deadline());
  }

  /** Makes calls that have this time, all tries together. */
  WorkerCalls(Calls calls, Duration timeout) {
    this.calls = calls;
    this.timeout = timeout;
  }

  WorkerCalls within(Duration limit) {
    return new WorkerCalls(calls, limit);
  }

  /**
   * Takes pending operations, with a lease.
   *
   * @param functions the exact names of 1 to 100 functions
   * @param options the options
   * @return the operations; none if the timeout passed
   */
  public List<Operation> claim(Collection<String> functions, ClaimOptions options) {
    ClaimOperationsRequest request = options.toMessage(functions);
    Duration limit = Times.sum(timeout, Times.of(request.getTimeout()));
    return calls
        .send(WorkerServiceGrpc.getClaimOperationsMethod(), request, limit)
        .getOperationsList()
        .stream()
        .map(Operation::of)
        .toList();
  }

  /**
   * Starts a pending operation by its id, without a lease.
   *
   * @param id the id of the operation
   * @param options the options
   * @return the operation
   */
  public Operation start(String id, StartOptions options) {
    StartOperationResponse answer =
        calls.send(WorkerServiceGrpc.getStartOperationMethod(), options.toMessage(id), timeout);
    return Operation.of(answer.getOperation(), answer.getReplayed());
  }

  /**
   * Reports the progress of an operation, and renews its lease.
   *
   * @param id the id of the operation
   * @param report the report; an empty one only renews the lease
   * @param options the options
   * @return the operation without its large fields
   */
  public Operation updateProgress(String id, Report report, WriteOptions options) {
    UpdateProgressRequest request = options.apply(report.toMessage().setOperationId(id)).build();
    UpdateProgressResponse answer =
        calls.send(WorkerServiceGrpc.getUpdateProgressMethod(), request, timeout);
    return Operation.of(answer.getOperation(), answer.getReplayed());
  }

  /**
   * Completes an operation.
   *
   * @param id the id of the operation
   * @param result JSON or a protobuf message of at most 1 MiB, or null for no result; see {@link
   *     Handler}
   * @param options the options
   * @return the operation
   * @throws NotJsonException if the result cannot be sent
   */
  public Operation complete(String id, Object result, WriteOptions options) {
    CompleteOperationRequest.Builder request =
        CompleteOperationRequest.newBuilder().setOperationId(id);
    Any packed = Json.toAny(result);
    if (packed != null) {
      request.setResult(packed);
    }
    CompleteOperationResponse answer =
        calls.send(
            WorkerServiceGrpc.getCompleteOperationMethod(),
            options.apply(request).build(),
            timeout);
    return Operation.of(answer.getOperation(), answer.getReplayed());
  }

  /**
   * Fails an operation, or only its attempt.
   *
   * @param id the id of the operation
   * @param errors the reasons, at least one
   * @param options the options
   * @return the operation, which failed or waits for its next attempt
   * @throws NotJsonException if the details of an error cannot be sent
   */
  public Operation fail(String id, List<OperationError> errors, FailOptions options) {
    FailOperationRequest request =
        options
            .toMessage(id)
            .addAllErrors(errors.stream().map(OperationError::toMessage).toList())
            .build();
    FailOperationResponse answer =
        calls.send(WorkerServiceGrpc.getFailOperationMethod(), request, timeout);
    return Operation.of(answer.getOperation(), answer.getReplayed());
  }

  /**
   * Gives an operation back: another worker gets it, and the attempt has not failed.
   *
   * @param id the id of the operation
   * @param options the options
   * @return the operation
   */
  public Operation release(String id, ReleaseOptions options) {
    ReleaseOperationResponse answer =
        calls.send(WorkerServiceGrpc.getReleaseOperationMethod(), options.toMessage(id), timeout);
    return Operation.of(answer.getOperation(), answer.getReplayed());
  }

  /**
   * Ends an operation whose cancel was requested: its worker has stopped.
   *
   * @param id the id of the operation
   * @param options the options
   * @return the operation
   */
  public Operation acknowledgeCancellation(String id, WriteOptions options) {
    AcknowledgeCancellationRequest.Builder request =
        AcknowledgeCancellationRequest.newBuilder().setOperationId(id);
    AcknowledgeCancellationResponse answer =
        calls.send(
            WorkerServiceGrpc.getAcknowledgeCancellationMethod(),
            options.apply(request).build(),
            timeout);
    return Operation.of(answer.getOperation(), answer.getReplayed());
  }
}
