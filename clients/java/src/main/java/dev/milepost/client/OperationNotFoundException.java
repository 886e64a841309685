package dev.milepost.client;

/** An operation that is not visible to you: unknown, foreign, expired or deleted. */
public class OperationNotFoundException extends NotFoundException {
  OperationNotFoundException(Refusal refusal) {
    super(refusal);
  }
}
