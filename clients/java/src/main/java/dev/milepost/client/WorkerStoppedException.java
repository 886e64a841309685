package dev.milepost.client;

/** The reason of work that must stop because its worker does. The operation is released. */
public class WorkerStoppedException extends RuntimeException {
  WorkerStoppedException() {
    super("the worker stops");
  }
}
