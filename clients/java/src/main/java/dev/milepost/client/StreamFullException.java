package dev.milepost.client;

/** The maximum number of operations on one progress stream. */
public class StreamFullException extends LimitReachedException {
  StreamFullException(Refusal refusal) {
    super(refusal);
  }
}
