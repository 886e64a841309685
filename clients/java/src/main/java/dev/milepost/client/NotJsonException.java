package dev.milepost.client;

/** A value that cannot be sent as JSON, or would not arrive as it is. Nothing was sent. */
public class NotJsonException extends IllegalArgumentException {
  NotJsonException(String message) {
    super(message);
  }

  NotJsonException(String message, Throwable cause) {
    super(message, cause);
  }
}
