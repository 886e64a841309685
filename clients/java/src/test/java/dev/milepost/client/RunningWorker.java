package dev.milepost.client;

import java.time.Duration;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/** A worker that runs in a thread of its own until it is closed. */
final class RunningWorker implements AutoCloseable {
  private final Worker worker;
  private final CompletableFuture<Void> end = new CompletableFuture<>();

  RunningWorker(WorkerBuilder builder) {
    worker = builder.build();
    Threads.daemon(this::run, "test-worker").start();
  }

  private void run() {
    try {
      worker.run();
      end.complete(null);
    } catch (Throwable problem) {
      end.completeExceptionally(problem);
    }
  }

  /** Returns what run has thrown. */
  Throwable failure() throws Exception {
    try {
      end.get(30, TimeUnit.SECONDS);
      return null;
    } catch (ExecutionException problem) {
      return problem.getCause();
    }
  }

  @Override
  public void close() throws Exception {
    worker.stop();
    Throwable failure = failure();
    if (failure != null) {
      throw new AssertionError("the worker ended with an exception", failure);
    }
  }

  /** Returns the next item, which must come soon. */
  static <T> T take(BlockingQueue<T> queue) throws InterruptedException {
    T item = queue.poll(30, TimeUnit.SECONDS);
    if (item == null) {
      throw new AssertionError("nothing came within 30 s");
    }
    return item;
  }

  /** Waits until the condition holds. */
  static void eventually(String what, BooleanSupplier condition) throws InterruptedException {
    long end = Clock.after(Duration.ofSeconds(30));
    while (!condition.getAsBoolean()) {
      if (Clock.now() > end) {
        throw new AssertionError("not within 30 s: " + what);
      }
      Thread.sleep(20);
    }
  }
}
