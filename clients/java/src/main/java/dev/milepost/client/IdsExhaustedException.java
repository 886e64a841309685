package dev.milepost.client;

/** A create for which the service found no free id. */
public class IdsExhaustedException extends InternalException {
  IdsExhaustedException(Refusal refusal) {
    super(refusal);
  }
}
