package dev.milepost.client;

/** A request id that was used for a request with other content. */
public class RequestIdReusedException extends MilepostException {
  RequestIdReusedException(Refusal refusal) {
    super(refusal);
  }
}
