package dev.milepost.client;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;

/**
 * A worker that claims operations of some functions, and calls a handler for each.
 *
 * <pre>{@code
 * Worker worker = Worker.builder(milepost).handle("video.transcode", work -> {
 *   work.progress(0.5, "halfway");
 *   return Map.of("frames", 1200);
 * }).build();
 * worker.runUntilShutdown();
 * }</pre>
 *
 * <p>Leases are renewed while a handler runs, and until the service has accepted the end of its
 * operation, which is tried again while the service is unavailable or limits the rate.
 *
 * <p>A worker runs once.
 */
public final class Worker implements AutoCloseable {
  /** How long one claim waits for work: less than the deadline of a call. */
  static final Duration CLAIM_TIMEOUT = Duration.ofSeconds(8);

  private static final int MAX_PER_CLAIM = 100;

  /** How long handlers may go on when they were interrupted because the worker stops. */
  private static final Duration STOP_PATIENCE = Duration.ofSeconds(2);

  private static final Logger LOG = System.getLogger("dev.milepost.client");

  private final Milepost milepost;
  private final Map<String, Handler> handlers;
  private final ClaimOptions claims;
  private final int concurrency;
  private final Duration grace;
  private final ThreadFactory threads;
  private final Set<Execution> executions = new HashSet<>();
  private final CountDownLatch ended = new CountDownLatch(1);
  private final Thread claimer = Threads.daemon(this::claimUntilStopped, "milepost-claims");
  private boolean hasBegun;
  private boolean isStopping;
  private boolean isClientClosing;
  private RuntimeException problem;

  Worker(
      Milepost milepost,
      Map<String, Handler> handlers,
      ClaimOptions claims,
      int concurrency,
      Duration grace,
      ThreadFactory threads) {
    this.milepost = milepost;
    this.handlers = handlers;
    this.claims = claims;
    this.concurrency = concurrency;
    this.grace = grace;
    this.threads = threads;
  }

  /**
   * Begins to set up a worker.
   *
   * @param milepost the client to work through
   * @return the builder
   */
  public static WorkerBuilder builder(Milepost milepost) {
    return new WorkerBuilder(milepost);
  }

  /**
   * Works until {@link #stop} is called, or the thread is interrupted.
   *
   * <p>Then it claims no more, and waits for the handlers within the grace. Their threads are
   * interrupted after it, and what is left is released: another worker gets it at once, and it is
   * no failed attempt. Releases are best effort; without one, another worker gets the operation
   * when its lease runs out.
   *
   * @throws MilepostException if claims are refused for good: the credential is not valid, or not
   *     granted one of the functions
   * @throws ClientClosedException if the client was closed meanwhile
   */
  public void run() {
    begin();
    try {
      awaitEndOfClaims();
      drain();
    } finally {
      milepost.workers().remove(this);
      ended.countDown();
    }
    throwProblem();
  }

  /**
   * Works until the Java virtual machine shuts down, such as by SIGTERM or Ctrl-C, which waits for
   * the end of the worker. For programs that only run a worker.
   *
   * @throws MilepostException if claims are refused for good
   * @throws ClientClosedException if the client was closed meanwhile
   */
  public void runUntilShutdown() {
    Thread hook = new Thread(this::close, "milepost-shutdown");
    Runtime.getRuntime().addShutdownHook(hook);
    try {
      run();
    } finally {
      try {
        Runtime.getRuntime().removeShutdownHook(hook);
      } catch (IllegalStateException isShuttingDown) {
        // The hook waits for this.
      }
    }
  }

  /** Claims no more, and lets {@link #run} return when the handlers have ended. */
  public synchronized void stop() {
    isStopping = true;
    claimer.interrupt();
    notifyAll();
  }

  /** Stops the worker, and waits for its end. */
  @Override
  public void close() {
    stop();
    synchronized (this) {
      if (!hasBegun) {
        return;
      }
    }
    try {
      ended.await();
    } catch (InterruptedException interruption) {
      Thread.currentThread().interrupt();
    }
  }

  /** Releases all operations at once, because the client is closed. */
  void leaveClient() {
    synchronized (this) {
      isClientClosing = true;
    }
    stop();
    long end = Clock.after(STOP_PATIENCE.plus(ReleaseQueue.TIMEOUT).plusSeconds(1));
    // Without the connection there are no releases: an interruption has to wait.
    boolean isInterrupted = Thread.interrupted();
    while (ended.getCount() > 0 && Clock.now() < end) {
      try {
        ended.await(end - Clock.now(), TimeUnit.NANOSECONDS);
      } catch (InterruptedException interruption) {
        isInterrupted = true;
      }
    }
    if (ended.getCount() > 0) {
      LOG.log(Level.WARNING, "the worker does not end");
    }
    if (isInterrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private synchronized void begin() {
    if (hasBegun) {
      throw new IllegalStateException("a worker runs once");
    }
    hasBegun = true;
    milepost.workers().add(this);
    claimer.start();
  }

  private void awaitEndOfClaims() {
    while (true) {
      try {
        claimer.join();
        return;
      } catch (InterruptedException interruption) {
        stop();
        synchronized (this) {
          problem = CallInterruptedException.mark(interruption);
        }
        Thread.interrupted(); // until the end of the work
      }
    }
  }

  private synchronized void throwProblem() {
    if (problem instanceof CallInterruptedException) {
      Thread.currentThread().interrupt(); // the end that was asked for
    } else if (isClientClosing) {
      throw new ClientClosedException();
    } else if (problem != null) {
      throw problem;
    }
  }

  private synchronized boolean isStopping() {
    return isStopping;
  }

  private void claimUntilStopped() {
    Backoff backoff = new Backoff(Backoff.MAX_PAUSE);
    while (!isStopping()) {
      try {
        int free = awaitRoom();
        List<Operation> operations = claim(Math.min(free, MAX_PER_CLAIM));
        backoff.reset();
        operations.forEach(this::begin);
      } catch (InterruptedException | CallInterruptedException interruption) {
        // The loop sees the end, unless it was a stray one.
      } catch (RuntimeException refusal) {
        if (isStopping() || !survive(refusal, backoff)) {
          return;
        }
      } catch (Error failure) { // such as a class that cannot be loaded
        synchronized (this) {
          problem = new IllegalStateException("the worker cannot claim", failure);
        }
        return;
      }
    }
  }

  /** Returns the number of operations that the worker may claim, once there is one. */
  private synchronized int awaitRoom() throws InterruptedException {
    while (executions.size() >= concurrency) {
      wait();
    }
    return concurrency - executions.size();
  }

  private List<Operation> claim(int maxOperations) {
    return milepost.workerCalls().claim(handlers.keySet(), claims.maxOperations(maxOperations));
  }

  /** Returns false after a refusal that ends the worker; else after a pause. */
  private boolean survive(RuntimeException refusal, Backoff backoff) {
    if (!(refusal instanceof MilepostException error && isSurvived(error))) {
      synchronized (this) {
        problem = refusal;
      }
      return false;
    }
    LOG.log(Level.WARNING, () -> "no work was claimed: " + refusal.getMessage());
    try {
      TimeUnit.NANOSECONDS.sleep(backoff.pause(error));
    } catch (InterruptedException interruption) {
      return true; // the loop sees the end
    }
    return true;
  }

  private static boolean isSurvived(MilepostException error) {
    return Disruption.isTemporary(error)
        || error instanceof LimitReachedException
        || error instanceof UndecodableAnswerException;
  }

  private void begin(Operation operation) {
    Handler handler = handlers.get(operation.function());
    Execution execution =
        new Execution(
            milepost,
            operation,
            handler,
            new Execution.Terms(true, Duration.ofSeconds(Long.MAX_VALUE), this::end));
    synchronized (this) {
      executions.add(execution);
    }
    try {
      threads.newThread(execution).start();
    } catch (Throwable failure) { // such as a lack of memory for another thread
      LOG.log(Level.ERROR, () -> execution.id() + " got no thread: " + failure);
      execution.giveBack();
      end(execution);
    }
  }

  private synchronized void end(Execution execution) {
    executions.remove(execution);
    notifyAll();
  }

  /** Waits for the handlers within the grace, and releases the other operations. */
  private void drain() {
    if (!awaitExecutions(grace, true)) {
      remaining().forEach(Execution::leave);
      awaitExecutions(STOP_PATIENCE, false);
      giveBack(remaining());
    }
  }

  /** Returns what goes on, the operations first whose cancels are requested. */
  private synchronized List<Execution> remaining() {
    List<Execution> remaining = new ArrayList<>(executions);
    remaining.sort(Comparator.comparing(execution -> !execution.isCancelRequested()));
    return remaining;
  }

  private void giveBack(List<Execution> remaining) {
    List<Thread> releases = new ArrayList<>();
    for (Execution execution : remaining) {
      LOG.log(Level.WARNING, () -> execution.id() + " does not end though it is interrupted");
      Thread thread = Threads.daemon(execution::giveBack, "milepost-release");
      thread.start();
      releases.add(thread);
    }
    long end = Clock.after(ReleaseQueue.TIMEOUT.plusSeconds(1));
    for (Thread release : releases) {
      try {
        release.join(Math.max(1, TimeUnit.NANOSECONDS.toMillis(end - Clock.now())));
      } catch (InterruptedException interruption) {
        return;
      }
    }
  }

  /**
   * Returns true if all handlers end within the time.
   *
   * @param endsWithClient return also when the client is closed
   */
  private synchronized boolean awaitExecutions(Duration timeout, boolean endsWithClient) {
    long end = Clock.after(timeout);
    try {
      while (!executions.isEmpty() && Clock.now() < end && !(endsWithClient && isClientClosing)) {
        TimeUnit.NANOSECONDS.timedWait(this, Math.max(1, end - Clock.now()));
      }
    } catch (InterruptedException interruption) {
      return false; // a second interruption ends the patience
    }
    return executions.isEmpty();
  }
}
