package dev.milepost.client;

import io.grpc.Status;

/** The absence of a result, with the operation as it was then. */
public class NoResultException extends MilepostException {
  private final Operation operation;

  NoResultException(Operation operation, String message) {
    super(Refusal.of(Status.Code.UNKNOWN, message, null));
    this.operation = operation;
  }

  /**
   * Returns the operation as it was read.
   *
   * @return the operation
   */
  public Operation operation() {
    return operation;
  }
}
