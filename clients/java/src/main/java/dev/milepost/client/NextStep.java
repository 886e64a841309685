package dev.milepost.client;

import java.util.Optional;

/** The step that an active operation requires next. */
public enum NextStep {
  /** A claim by a worker. */
  CLAIM,
  /** The renewal of the lease. */
  RENEWAL,
  /** The end of the work. */
  END;

  /** Returns the step; empty for no step, and for one of a newer service. */
  static Optional<NextStep> of(dev.milepost.v1.NextStep step) {
    return switch (step) {
      case NEXT_STEP_CLAIM -> Optional.of(CLAIM);
      case NEXT_STEP_RENEWAL -> Optional.of(RENEWAL);
      case NEXT_STEP_END -> Optional.of(END);
      case NEXT_STEP_UNSPECIFIED, UNRECOGNIZED -> Optional.empty();
    };
  }
}
