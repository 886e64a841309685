package dev.milepost.client;

/** Stub. */
public class Work {
  private Work() {}

  /** {@return x} */
  public String reason() {
    return null;
  }
}
