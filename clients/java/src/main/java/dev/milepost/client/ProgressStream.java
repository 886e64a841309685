package dev.milepost.client;

import dev.milepost.v1.ProgressUpdate;
import dev.milepost.v1.StreamProgressRequest;
import dev.milepost.v1.UpdateProgressRequest;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The progress stream that all work of a client shares: it reconnects, and renews all leases.
 *
 * <p>Reports leave it in the order of their urgency: first the operation whose lease runs out
 * first. What is due goes out in one message, and the next one follows after a short pause. After a
 * disconnection the newest report of every operation is sent again, because the service notifies a
 * stream of a cancel only if the operation was reported on it. After a rate limit the reports wait
 * for a while, and only leases are renewed, which the service does not limit.
 */
final class ProgressStream {
  /** The life of a stream after which the pauses begin anew. */
  private static final Duration STEADY = Duration.ofSeconds(10);

  /** The shortest pause after a rate limit, if a lease is to be renewed before it ends. */
  private static final Duration MIN_LIMITED_PAUSE = Duration.ofMillis(250);

  /** The time between two messages: what is reported within it is one message. */
  private static final Duration PACE = Duration.ofMillis(50);

  /** The updates of one message, as many as the service accepts. */
  private static final int MAX_UPDATES = 1_000;

  /** The size of a message of several updates. The largest update alone has less. */
  private static final int MAX_MESSAGE_BYTES = 512 * 1024;

  /** How long close waits for the acknowledgements of the last reports. */
  private static final Duration CLOSE_TIMEOUT = Duration.ofSeconds(5);

  /** How long the end of work waits for the stream to take its last checkpoint. */
  private static final Duration SEND_TIMEOUT = Duration.ofMillis(500);

  private static final Logger LOG = System.getLogger("dev.milepost.client");

  private final Calls calls;
  private final ScheduledExecutorService timer;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Map<String, HeldOperation> held = new HashMap<>();
  private final Set<HeldOperation> unsent = new LinkedHashSet<>();
  private final ProgressAnswers answers = new ProgressAnswers(this);
  private long nextDueTime = Long.MAX_VALUE;
  private long quietEndTime = Long.MIN_VALUE; // until then only leases are renewed, after a limit
  private long nextMessageTime = Long.MIN_VALUE;
  private boolean isClosing;
  private boolean isRunning;
  private ProgressExchange exchange;

  ProgressStream(Calls calls, ScheduledExecutorService timer) {
    this.calls = calls;
    this.timer = timer;
  }

  /**
   * Renews the lease of the operation from now on, and watches for its cancel. The work on an
   * earlier attempt of the operation is over.
   */
  HeldOperation hold(Operation operation, HeldOperation.Holder holder) {
    HeldOperation latest = new HeldOperation(operation, holder);
    locked(
        () -> {
          HeldOperation earlier = held.put(operation.id(), latest);
          if (earlier != null) {
            earlier.refuse(ProgressAnswers.staleAttempt(operation.id()));
            unsent.remove(earlier);
          }
          nextDueTime = Math.min(nextDueTime, latest.dueTime());
          wake();
        });
    return latest;
  }

  /** Sends the report as soon as possible; it replaces one that was not sent yet. */
  void report(HeldOperation operation, UpdateProgressRequest report) {
    locked(
        () -> {
          operation.merge(report);
          enqueue(operation);
        });
  }

  /** Returns when all reports so far are stored. */
  void flush(HeldOperation operation) throws InterruptedException {
    lock.lockInterruptibly();
    try {
      long version = operation.version();
      while (!operation.isStored(version)) {
        operation.throwProblem();
        if (operation.isClosed()) {
          throw new IllegalStateException("the work is over: its last report may be lost");
        }
        enqueue(operation);
        changed.await();
      }
      operation.throwProblem();
    } finally {
      lock.unlock();
    }
  }

  /** Returns true if a checkpoint may not be stored yet. */
  boolean hasUnstoredCheckpoint(HeldOperation operation) {
    lock.lock();
    try {
      return operation.hasUnstoredCheckpoint();
    } finally {
      lock.unlock();
    }
  }

  /**
   * Returns the newest report if it may not be stored, or null. From now on the stream only renews
   * the lease: the work is ending. A checkpoint is on the stream first, so that no earlier one
   * there can replace it.
   */
  UpdateProgressRequest.Builder lastReport(HeldOperation operation) throws InterruptedException {
    lock.lockInterruptibly();
    try {
      operation.onlyRenew();
      long end = Clock.after(SEND_TIMEOUT);
      while (operation.hasUnstoredCheckpoint()
          && !operation.isSent()
          && !operation.isClosed()
          && Clock.now() < end) {
        operation.hurry();
        enqueue(operation);
        awaitUntil(end);
      }
      return operation.isUnstored() ? operation.unstored() : null;
    } finally {
      lock.unlock();
    }
  }

  /** Notes that a call has stored the newest report. */
  void settle(HeldOperation operation) {
    locked(() -> operation.settle(operation.version()));
  }

  /** Sends nothing more about the operation, and lets its lease run out. */
  void drop(HeldOperation operation) {
    locked(
        () -> {
          operation.close();
          held.remove(operation.id(), operation);
          unsent.remove(operation);
          changed.signalAll();
        });
  }

  /** Sends the last reports, and waits a bounded time for their acknowledgements. */
  void close() {
    locked(
        () -> {
          isClosing = true;
          changed.signalAll();
          long end = Clock.after(CLOSE_TIMEOUT);
          while (isRunning && Clock.now() < end) {
            awaitUninterruptibly(end);
          }
          if (exchange != null) {
            exchange.cancel();
          }
        });
  }

  private void awaitUninterruptibly(long end) {
    try {
      awaitUntil(end);
    } catch (InterruptedException interruption) {
      isRunning = false; // nothing waits any more
      Thread.currentThread().interrupt();
    }
  }

  /** Performs the task under the lock. */
  void locked(Runnable task) {
    lock.lock();
    try {
      task.run();
    } finally {
      lock.unlock();
    }
  }

  /** Returns the operation of the id, if it is held. */
  HeldOperation find(String id) {
    return held.get(id);
  }

  /** Sends the newest report of the operation soon, if it is still held. */
  void enqueue(HeldOperation operation) {
    if (held.get(operation.id()) == operation) {
      unsent.add(operation);
      wake();
    }
  }

  /** Sends the newest report again after a pause. */
  void enqueueLater(HeldOperation operation, long pause) {
    Threads.schedule(timer, () -> locked(() -> enqueue(operation)), pause);
  }

  /** Removes an operation that is closed, and wakes what waits. */
  void settleAnswer(HeldOperation operation) {
    if (operation.isClosed()) {
      held.remove(operation.id(), operation);
      unsent.remove(operation);
    }
    changed.signalAll();
  }

  private void wake() {
    changed.signalAll();
    if (!isRunning && !isClosing) {
      isRunning = true;
      Threads.daemon(this::run, "milepost-progress").start();
    }
  }

  /** Holds one stream after the other, until the client is closed. */
  private void run() {
    Backoff backoff = new Backoff(Backoff.MAX_PAUSE);
    boolean isLimited = false;
    lock.lock();
    try {
      while (awaitWork()) {
        long openTime = Clock.now();
        exchange = new ProgressExchange(calls, this, lock, changed);
        MilepostException error = exchange.run();
        isLimited = error instanceof LimitReachedException || (isLimited && isVague(error));
        boolean isSteady = Clock.now() - openTime > STEADY.toNanos();
        boolean isLost = exchange.wasAnswered() && isAway(error) && !isVague(error);
        if (isSteady || (isLost && !isLimited)) {
          backoff.reset();
        }
        if (!isClosing) {
          pause(error, isLimited, error == null ? backoff.pause() : backoff.pause(error));
        }
      }
    } catch (InterruptedException neverDone) {
      LOG.log(Level.ERROR, "the progress stream was interrupted", neverDone);
    } finally {
      isRunning = false; // the next report begins again, whatever has happened
      changed.signalAll();
      lock.unlock();
    }
  }

  /** Returns true when operations are held, and false when the client is closed. */
  private boolean awaitWork() throws InterruptedException {
    while (held.isEmpty() && !isClosing) {
      changed.await();
    }
    return !isClosing;
  }

  private void pause(MilepostException error, boolean isLimited, long pause)
      throws InterruptedException {
    LOG.log(Level.DEBUG, () -> "the progress stream ended: " + error);
    long end = Clock.now() + pause;
    quietEndTime = isLimited ? end : Long.MIN_VALUE;
    enqueueAgain(!isLimited);
    if (isLimited) {
      long due = held.values().stream().mapToLong(HeldOperation::dueTime).min().orElse(end);
      end = Math.min(end, Math.max(due, Clock.now() + MIN_LIMITED_PAUSE.toNanos()));
    }
    while (Clock.now() < end && !isClosing) {
      awaitUntil(end);
    }
    nextDueTime = Long.MIN_VALUE; // time has passed without a look at the leases
  }

  /** Sends again what the last stream may have lost, or everything. */
  private void enqueueAgain(boolean everything) {
    for (HeldOperation operation : held.values()) {
      if (everything || operation.isUnanswered()) {
        unsent.add(operation);
        operation.loseAcknowledgements();
      }
    }
  }

  /** Waits for the next message; returns null if the stream is to end. */
  StreamProgressRequest nextMessage(ProgressExchange stream) throws InterruptedException {
    while (!stream.isEnded()) {
      long now = Clock.now();
      enqueueDue(now);
      boolean isPaced = now >= nextMessageTime || isClosing;
      List<ProgressUpdate> updates = isPaced && stream.isReady() ? takeUpdates(now) : List.of();
      if (!updates.isEmpty()) {
        nextMessageTime = now + PACE.toNanos();
        changed.signalAll(); // what waits for its place on the stream
        return StreamProgressRequest.newBuilder().addAllUpdates(updates).build();
      }
      if (isClosing && unsent.isEmpty()) {
        return null;
      }
      awaitUntil(isPaced ? nextDueTime : nextMessageTime);
    }
    return null;
  }

  /** Enqueues the operations whose leases are to be renewed, if there is one. */
  private void enqueueDue(long now) {
    if (now < nextDueTime) {
      return;
    }
    nextDueTime = Long.MAX_VALUE;
    for (HeldOperation operation : held.values()) {
      if (operation.earlyTime() <= now) {
        unsent.add(operation);
      } else {
        nextDueTime = Math.min(nextDueTime, operation.dueTime());
      }
    }
  }

  /** Takes the updates of the next message, the most urgent ones first. */
  private List<ProgressUpdate> takeUpdates(long now) {
    boolean isQuiet = now < quietEndTime && !isClosing;
    List<ProgressUpdate> updates = new ArrayList<>();
    int size = 0;
    for (HeldOperation operation : ready(now, isQuiet)) {
      if (updates.size() == MAX_UPDATES || size > MAX_MESSAGE_BYTES) {
        break;
      }
      if (!isQuiet || !operation.isUnstored()) {
        unsent.remove(operation);
      }
      ProgressUpdate update = operation.take(now, isQuiet);
      size += update.getSerializedSize();
      updates.add(update);
      nextDueTime = Math.min(nextDueTime, operation.dueTime());
    }
    return updates;
  }

  /** Returns the operations with something to send now; notes when the others have. */
  private List<HeldOperation> ready(long now, boolean isQuiet) {
    List<HeldOperation> ready = new ArrayList<>();
    for (HeldOperation operation : unsent) {
      long time = isQuiet ? Math.min(operation.dueTime(), quietEndTime) : operation.readyTime();
      boolean isReady = isQuiet ? operation.earlyTime() <= now : time <= now || isClosing;
      if (isReady) {
        ready.add(operation);
      } else {
        nextDueTime = Math.min(nextDueTime, time);
      }
    }
    ready.sort(Comparator.comparingLong(HeldOperation::leaseEndTime));
    return ready;
  }

  @SuppressWarnings("WaitNotInLoop") // the callers loop
  private void awaitUntil(long time) throws InterruptedException {
    if (time == Long.MAX_VALUE) {
      changed.await();
    } else {
      changed.awaitNanos(time - Clock.now());
    }
  }

  ProgressAnswers answers() {
    return answers;
  }

  /** Returns true if the stream ended because the service cannot be reached. */
  private static boolean isAway(MilepostException error) {
    return error != null
        && (error instanceof UnavailableException || Disruption.isDisruption(error, false));
  }

  /** Returns true if a write failed before gRPC knew the reason, which was the earlier one. */
  private static boolean isVague(MilepostException error) {
    return error instanceof InternalException && error.reason().isEmpty();
  }
}
