package dev.milepost.client;

/** A database of the service that does not answer. */
public class StoreUnavailableException extends UnavailableException {
  StoreUnavailableException(Refusal refusal) {
    super(refusal);
  }
}
