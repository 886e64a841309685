package dev.milepost.client;

/** A defect of the service. The metadata has the trace id of its log entry. */
public class InternalException extends MilepostException {
  InternalException(Refusal refusal) {
    super(refusal);
  }
}
