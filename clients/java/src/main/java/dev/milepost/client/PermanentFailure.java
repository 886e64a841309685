package dev.milepost.client;

/** Stub. */
public class PermanentFailure {
  private PermanentFailure() {}
}
