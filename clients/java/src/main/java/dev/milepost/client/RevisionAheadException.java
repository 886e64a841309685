package dev.milepost.client;

/**
 * A watch after a revision that the operation has not reached, or no longer has, because the
 * database was restored.
 */
public class RevisionAheadException extends MilepostException {
  RevisionAheadException(Refusal refusal) {
    super(refusal);
  }
}
