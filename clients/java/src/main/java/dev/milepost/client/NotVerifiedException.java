package dev.milepost.client;

/** A request that must not be trusted: answer it with 401. */
public class NotVerifiedException extends Exception {
  NotVerifiedException(String message, Throwable cause) {
    super(message, cause);
  }
}
