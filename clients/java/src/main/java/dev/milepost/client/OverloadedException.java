package dev.milepost.client;

/** A replica that holds as many calls as it accepts. */
public class OverloadedException extends UnavailableException {
  OverloadedException(Refusal refusal) {
    super(refusal);
  }
}
