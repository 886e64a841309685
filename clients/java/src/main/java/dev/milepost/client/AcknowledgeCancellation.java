package dev.milepost.client;

/**
 * The end of a handler that has stopped because a cancel was requested: the operation is cancelled.
 * Thrown by a {@link Handler}. If no cancel was requested, the attempt fails.
 */
public class AcknowledgeCancellation extends RuntimeException {
  /** Creates the acknowledgement. */
  public AcknowledgeCancellation() {
    super("the requested cancel is acknowledged");
  }
}
