package dev.milepost.client;

/** A name of a callback host that the service cannot look up now. Nothing was stored. */
public class NameServerUnavailableException extends UnavailableException {
  NameServerUnavailableException(Refusal refusal) {
    super(refusal);
  }
}
