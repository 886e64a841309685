package dev.milepost.client;

/** A missing or invalid credential. Nothing was read. */
public class UnauthenticatedException extends MilepostException {
  UnauthenticatedException(Refusal refusal) {
    super(refusal);
  }
}
