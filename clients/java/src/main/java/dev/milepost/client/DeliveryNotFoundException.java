package dev.milepost.client;

/** A delivery that is not visible to you: unknown, foreign or purged. */
public class DeliveryNotFoundException extends NotFoundException {
  DeliveryNotFoundException(Refusal refusal) {
    super(refusal);
  }
}
