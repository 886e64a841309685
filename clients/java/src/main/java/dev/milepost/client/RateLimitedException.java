package dev.milepost.client;

/** Too many calls in a short time. */
public class RateLimitedException extends LimitReachedException {
  RateLimitedException(Refusal refusal) {
    super(refusal);
  }
}
