package dev.milepost.client;

/** An operation that had not ended when the timeout passed. It goes on. */
public class StillRunningException extends NoResultException {
  StillRunningException(Operation operation) {
    super(operation, "operation " + operation.id() + " is " + operation.status());
  }
}
