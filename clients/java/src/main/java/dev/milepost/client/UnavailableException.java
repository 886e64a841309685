package dev.milepost.client;

/** A temporary failure. The client retried until the deadline, where that is safe. */
public class UnavailableException extends MilepostException {
  UnavailableException(Refusal refusal) {
    super(refusal);
  }
}
