package dev.milepost.client;

/** A limit. Nothing was changed. */
public class LimitReachedException extends MilepostException {
  LimitReachedException(Refusal refusal) {
    super(refusal);
  }
}
