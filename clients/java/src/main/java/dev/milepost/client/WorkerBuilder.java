package dev.milepost.client;

import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ThreadFactory;

/** Sets up a {@link Worker}. */
public final class WorkerBuilder {
  /** The operations that one progress stream carries. */
  private static final int MAX_CONCURRENCY = 1_000;

  private final Milepost milepost;
  private final Map<String, Handler> handlers = new LinkedHashMap<>();
  private int concurrency = 10;
  private String name;
  private Duration lease = Duration.ofSeconds(30);
  private Duration grace = Duration.ofSeconds(30);
  private ThreadFactory threads = task -> Threads.daemon(task, "milepost-work");

  WorkerBuilder(Milepost milepost) {
    this.milepost = Objects.requireNonNull(milepost);
  }

  /**
   * Does the work of a function.
   *
   * @param function the exact name of the function
   * @param handler the handler, which is called in a thread of its own for every operation
   * @return this builder
   */
  public WorkerBuilder handle(String function, Handler handler) {
    handlers.put(Objects.requireNonNull(function), Objects.requireNonNull(handler));
    return this;
  }

  /**
   * Bounds the operations at once.
   *
   * @param count 1 to 1,000; 10 by default
   * @return this builder
   * @throws IllegalArgumentException if it is out of range
   */
  public WorkerBuilder concurrency(int count) {
    if (count < 1 || count > MAX_CONCURRENCY) {
      throw new IllegalArgumentException("concurrency must lie between 1 and " + MAX_CONCURRENCY);
    }
    concurrency = count;
    return this;
  }

  /**
   * Names the worker, for people.
   *
   * @param text the name
   * @return this builder
   */
  public WorkerBuilder name(String text) {
    name = text;
    return this;
  }

  /**
   * Sets the time after which another worker gets an operation of a dead worker. The lease is
   * renewed when a third of it has passed.
   *
   * @param time 5 s to 1 h; 30 s by default
   * @return this builder
   */
  public WorkerBuilder lease(Duration time) {
    lease = Objects.requireNonNull(time);
    return this;
  }

  /**
   * Sets how long handlers may go on after the worker was stopped.
   *
   * @param time 30 s by default
   * @return this builder
   */
  public WorkerBuilder grace(Duration time) {
    grace = Objects.requireNonNull(time);
    return this;
  }

  /**
   * Makes the threads of the handlers, such as virtual ones, where Java has them.
   *
   * @param factory daemon threads by default
   * @return this builder
   */
  public WorkerBuilder threads(ThreadFactory factory) {
    threads = Objects.requireNonNull(factory);
    return this;
  }

  /**
   * Returns the worker, which is not running yet.
   *
   * @return the worker
   * @throws IllegalStateException if there is no handler
   */
  public Worker build() {
    if (handlers.isEmpty()) {
      throw new IllegalStateException("a worker needs handlers");
    }
    ClaimOptions claims = new ClaimOptions().lease(lease).timeout(Worker.CLAIM_TIMEOUT);
    if (name != null) {
      claims.worker(name);
    }
    return new Worker(milepost, Map.copyOf(handlers), claims, concurrency, grace, threads);
  }
}
