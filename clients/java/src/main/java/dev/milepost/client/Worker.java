package dev.milepost.client;

/** Stub. */
public class Worker {
  private Worker() {}
}
