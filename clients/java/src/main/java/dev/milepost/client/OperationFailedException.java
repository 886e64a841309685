package dev.milepost.client;

import java.util.List;
import java.util.stream.Collectors;

/** An operation that has no result because it failed. */
public class OperationFailedException extends NoResultException {
  OperationFailedException(Operation operation) {
    super(operation, "operation " + operation.id() + " failed: " + causes(operation));
  }

  /**
   * Returns the errors of the operation.
   *
   * @return the errors, at least one
   */
  public List<OperationError> errors() {
    return operation().errors();
  }

  private static String causes(Operation operation) {
    return operation.errors().stream()
        .map(cause -> cause.code() + ": " + cause.message())
        .collect(Collectors.joining("; "));
  }
}
