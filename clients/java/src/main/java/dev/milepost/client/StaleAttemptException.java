package dev.milepost.client;

/** An attempt that has ended: its lease is lost, or another attempt has started. */
public class StaleAttemptException extends ConflictException {
  StaleAttemptException(Refusal refusal) {
    super(refusal);
  }
}
