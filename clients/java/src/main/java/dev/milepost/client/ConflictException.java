package dev.milepost.client;

/** A request based on an old copy. Read the operation again and decide again. */
public class ConflictException extends MilepostException {
  ConflictException(Refusal refusal) {
    super(refusal);
  }
}
