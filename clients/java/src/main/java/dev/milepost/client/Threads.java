package dev.milepost.client;

import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/** Threads that do not keep the program alive. */
final class Threads {
  private Threads() {}

  static Thread daemon(Runnable task, String name) {
    Thread thread = new Thread(task, name);
    thread.setDaemon(true);
    return thread;
  }

  /** Performs the task after so many nanoseconds, unless the client is closed before. */
  static void schedule(ScheduledExecutorService timer, Runnable task, long nanos) {
    try {
      timer.schedule(task, nanos, TimeUnit.NANOSECONDS);
    } catch (RejectedExecutionException closed) {
      // Nothing is left to do.
    }
  }
}
