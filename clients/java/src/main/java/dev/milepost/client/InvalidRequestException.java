package dev.milepost.client;

/** A malformed request. Nothing was read or changed. */
public class InvalidRequestException extends MilepostException {
  InvalidRequestException(Refusal refusal) {
    super(refusal);
  }
}
