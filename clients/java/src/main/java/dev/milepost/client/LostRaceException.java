package dev.milepost.client;

/** A transition that concurrent changes preceded at every try. */
public class LostRaceException extends ConflictException {
  LostRaceException(Refusal refusal) {
    super(refusal);
  }
}
