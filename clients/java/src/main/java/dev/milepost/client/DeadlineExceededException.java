package dev.milepost.client;

/** No response in time. A change may or may not have happened. */
public class DeadlineExceededException extends MilepostException {
  DeadlineExceededException(Refusal refusal) {
    super(refusal);
  }
}
