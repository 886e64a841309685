package dev.milepost.client;

/** An acknowledgement of a cancel that was not requested. */
public class CancellationNotRequestedException extends MilepostException {
  CancellationNotRequestedException(Refusal refusal) {
    super(refusal);
  }
}
