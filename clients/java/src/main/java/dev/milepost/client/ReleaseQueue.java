package dev.milepost.client;

import dev.milepost.v1.UpdateProgressRequest;
import java.time.Duration;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/** Releases at the end of workers: not all at once, and only for a short time. */
final class ReleaseQueue {
  /** How long the end of a program may wait for its releases, all together. */
  static final Duration TIMEOUT = Duration.ofSeconds(2);

  /** Releases at once, so that the end of a large worker does not overload the service. */
  private static final int MAX_RELEASES = 100;

  private final Semaphore slots = new Semaphore(MAX_RELEASES, true);

  /**
   * Releases the attempt, best effort. Its last checkpoint is stored before. If a cancel is
   * requested, it is acknowledged instead.
   */
  void giveBack(Milepost milepost, Work work) {
    long end = Clock.after(TIMEOUT);
    try {
      if (slots.tryAcquire(TIMEOUT.toMillis(), TimeUnit.MILLISECONDS)) {
        try {
          release(milepost, work, end);
        } finally {
          slots.release();
        }
      }
    } catch (InterruptedException interruption) {
      throw CallInterruptedException.mark(interruption);
    }
  }

  private static void release(Milepost milepost, Work work, long end) throws InterruptedException {
    String id = work.operation().id();
    int attempt = work.operation().attempt();
    String requestId = Calls.newRequestId();
    WorkerCalls calls = milepost.workerCalls();
    if (work.isCancelRequested()) {
      WriteOptions options = new WriteOptions().attempt(attempt).requestId(requestId);
      UntilFinal.send(
          left(end), 0, () -> calls.within(left(end)).acknowledgeCancellation(id, options));
      return;
    }
    if (milepost.progress().hasUnstoredCheckpoint(work.held())) {
      storeCheckpoint(milepost, work, left(end).dividedBy(2));
    }
    ReleaseOptions options =
        new ReleaseOptions().attempt(attempt).requestId(requestId).reason("the worker stops");
    UntilFinal.send(left(end), 0, () -> calls.within(left(end)).release(id, options));
  }

  private static void storeCheckpoint(Milepost milepost, Work work, Duration timeout)
      throws InterruptedException {
    UpdateProgressRequest.Builder last = milepost.progress().lastReport(work.held());
    if (last == null) {
      return;
    }
    try {
      WriteOptions options = new WriteOptions().attempt(work.operation().attempt());
      milepost
          .workerCalls()
          .within(timeout)
          .updateProgress(work.operation().id(), new Report(last), options);
    } catch (CallInterruptedException interruption) {
      throw interruption;
    } catch (MilepostException refusal) {
      return; // the checkpoint is lost, the release is not
    }
  }

  private static Duration left(long end) {
    return Duration.ofNanos(Math.max(1, end - Clock.now()));
  }
}
