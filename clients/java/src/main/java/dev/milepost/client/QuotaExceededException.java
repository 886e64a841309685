package dev.milepost.client;

/** The maximum number of active operations of one owner. */
public class QuotaExceededException extends LimitReachedException {
  QuotaExceededException(Refusal refusal) {
    super(refusal);
  }
}
