package dev.milepost.client;

/** A response that this client cannot decode. The service has accepted the request. */
public class UndecodableAnswerException extends MilepostException {
  UndecodableAnswerException(Refusal refusal) {
    super(refusal);
  }
}
