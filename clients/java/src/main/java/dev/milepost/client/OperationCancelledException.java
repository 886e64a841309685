package dev.milepost.client;

/** An operation that has no result because it was cancelled. */
public class OperationCancelledException extends NoResultException {
  OperationCancelledException(Operation operation) {
    super(operation, "operation " + operation.id() + " was cancelled");
  }
}
