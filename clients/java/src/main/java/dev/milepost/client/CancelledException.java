package dev.milepost.client;

/** A transition of a cancelled operation. The worker must stop. */
public class CancelledException extends IllegalTransitionException {
  CancelledException(Refusal refusal) {
    super(refusal);
  }
}
