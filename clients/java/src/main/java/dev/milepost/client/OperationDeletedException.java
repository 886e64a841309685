package dev.milepost.client;

/** Your own operation, which was deleted. */
public class OperationDeletedException extends OperationNotFoundException {
  OperationDeletedException(Refusal refusal) {
    super(refusal);
  }
}
