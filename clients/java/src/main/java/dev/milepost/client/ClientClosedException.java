package dev.milepost.client;

/** A call of a client that is closed. */
public class ClientClosedException extends IllegalStateException {
  ClientClosedException() {
    super("the client is closed");
  }
}
