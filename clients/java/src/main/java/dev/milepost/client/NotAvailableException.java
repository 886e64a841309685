package dev.milepost.client;

/** A documented call that this release of the service does not serve. */
public class NotAvailableException extends MilepostException {
  NotAvailableException(Refusal refusal) {
    super(refusal);
  }
}
