package dev.milepost.client;

import io.grpc.Status;

/**
 * An interruption of the thread during a call. The thread is still marked as interrupted. A change
 * may or may not have happened.
 */
public class CallInterruptedException extends MilepostException {
  CallInterruptedException(Throwable cause) {
    super(Refusal.of(Status.Code.CANCELLED, "the thread was interrupted during the call", cause));
  }

  /** Marks the thread as interrupted again, and returns the exception. */
  static CallInterruptedException mark(Throwable cause) {
    Thread.currentThread().interrupt();
    return new CallInterruptedException(cause);
  }
}
