package dev.milepost.client;

/** An operation that has changed since the expected revision. */
public class RevisionMismatchException extends ConflictException {
  RevisionMismatchException(Refusal refusal) {
    super(refusal);
  }
}
