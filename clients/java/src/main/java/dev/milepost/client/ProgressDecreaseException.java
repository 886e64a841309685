package dev.milepost.client;

/** A decrease of progress within one attempt, beyond a small tolerance. */
public class ProgressDecreaseException extends InvalidRequestException {
  ProgressDecreaseException(Refusal refusal) {
    super(refusal);
  }
}
