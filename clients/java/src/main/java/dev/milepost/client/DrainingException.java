package dev.milepost.client;

/** A replica that is shutting down. */
public class DrainingException extends UnavailableException {
  DrainingException(Refusal refusal) {
    super(refusal);
  }
}
