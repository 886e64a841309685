package dev.milepost.client;

/** A resource that does not exist or is not visible to you. */
public class NotFoundException extends MilepostException {
  NotFoundException(Refusal refusal) {
    super(refusal);
  }
}
