package dev.milepost.client;

import dev.milepost.v1.UpdateProgressRequest;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * One operation in the hands of a {@link Handler}. Its reports travel on the stream that all work
 * of a client shares, and do not wait for an answer. For use by any thread.
 */
public final class Work {
  private static final int MAX_MESSAGE_LENGTH = 65_536;
  private static final int MAX_CHECKPOINT_BYTES = 65_536;
  private static final int MAX_TYPE_URL_LENGTH = 2_048;

  private final Operation operation;
  private final ProgressStream stream;
  private final HeldOperation held;
  private final CountDownLatch cancelRequest = new CountDownLatch(1);
  private volatile RuntimeException reason;
  private volatile boolean isEnded;

  Work(ProgressStream stream, Operation operation, Consumer<MilepostException> onOver) {
    this.stream = stream;
    this.operation = operation;
    operation.cancelRequestTime().ifPresent(requested -> requestCancel());
    this.held =
        stream.hold(
            operation,
            new HeldOperation.Holder() {
              @Override
              public void onOver(MilepostException problem) {
                stop(problem);
                onOver.accept(problem);
              }

              @Override
              public void onCancelRequested() {
                requestCancel();
              }
            });
  }

  /** {@return the operation as it was claimed} */
  public Operation operation() {
    return operation;
  }

  /** {@return the checkpoint of an earlier attempt, if one was saved} */
  public Optional<Payload> checkpoint() {
    return operation.checkpoint();
  }

  /**
   * Reports the completed share of the work.
   *
   * @param share between 0.0 and 1.0
   * @throws MilepostException the error of an earlier report that was refused, or the {@link
   *     #reason}
   */
  public void progress(double share) {
    report(new Report().progress(share));
  }

  /**
   * Reports the completed share of the work, and the present step.
   *
   * @param share between 0.0 and 1.0
   * @param message the step as a text
   * @throws MilepostException the error of an earlier report that was refused, or the {@link
   *     #reason}
   */
  public void progress(double share, String message) {
    report(new Report().progress(share).message(message));
  }

  /**
   * Saves the state of the work for the next attempt. It is stored once {@link #flush} has
   * returned.
   *
   * @param state JSON or a protobuf message of at most 65,536 bytes
   * @throws MilepostException the error of an earlier report that was refused, or the {@link
   *     #reason}
   */
  public void saveCheckpoint(Object state) {
    report(new Report().checkpoint(state));
  }

  /**
   * Reports progress, a message and a checkpoint together; they are stored together.
   *
   * @param report the report; an empty one only renews the lease
   * @throws IllegalArgumentException if a checkpoint or a message is too large
   * @throws MilepostException the error of an earlier report that was refused, or the {@link
   *     #reason}
   */
  public void report(Report report) {
    throwIfOver();
    if (isEnded) {
      throw new IllegalStateException("the work is over: nothing more can be reported about it");
    }
    stream.report(held, bounded(report.toMessage().build()));
  }

  /**
   * Refuses what gRPC or the service would not take: it would end the reports of all operations.
   */
  private static UpdateProgressRequest bounded(UpdateProgressRequest report) {
    require(report.getMessage().length(), MAX_MESSAGE_LENGTH, "characters of the message");
    require(
        report.getCheckpoint().getValue().size(), MAX_CHECKPOINT_BYTES, "bytes of a checkpoint");
    require(
        report.getCheckpoint().getTypeUrl().length(), MAX_TYPE_URL_LENGTH, "characters of a type");
    return report;
  }

  private static void require(int size, int max, String what) {
    if (size > max) {
      throw new IllegalArgumentException("more than " + max + " " + what);
    }
  }

  /**
   * Waits until the service has stored all reports so far, which takes up to a second.
   *
   * @throws InterruptedException if the thread is interrupted
   * @throws MilepostException if a report was refused, or the work must stop
   */
  public void flush() throws InterruptedException {
    throwIfOver();
    stream.flush(held);
  }

  /**
   * Returns the reason why the handler must stop, if it must: a {@link CancelledException}, an
   * {@link OperationExpiredException}, a {@link StaleAttemptException} (the lease is lost), or a
   * {@link WorkerStoppedException}.
   *
   * @return the reason; empty while the work may go on
   */
  public Optional<RuntimeException> reason() {
    return Optional.ofNullable(reason);
  }

  /** Throws the {@link #reason} if the handler must stop. */
  public void throwIfOver() {
    RuntimeException found = reason;
    if (found != null) {
      throw found;
    }
  }

  /**
   * Returns true if a cancel with a grace is requested. The handler may then clean up and throw an
   * {@link AcknowledgeCancellation}, or go on and end its work. At the end of the grace it must
   * stop.
   *
   * @return true once it is requested
   */
  public boolean isCancelRequested() {
    return cancelRequest.getCount() == 0;
  }

  /**
   * Waits for a request to cancel.
   *
   * @param timeout the maximum wait
   * @return true if a cancel is requested
   * @throws InterruptedException if the thread is interrupted
   */
  public boolean awaitCancelRequest(Duration timeout) throws InterruptedException {
    return cancelRequest.await(Times.nanos(timeout), TimeUnit.NANOSECONDS);
  }

  void requestCancel() {
    cancelRequest.countDown();
  }

  /** Lets every report throw the reason. */
  void stop(RuntimeException problem) {
    if (reason == null) {
      reason = problem;
    }
  }

  /** Refuses further reports. */
  void end() {
    isEnded = true;
  }

  HeldOperation held() {
    return held;
  }

  /** Reports nothing more, and renews the lease no more. */
  void detach() {
    stream.drop(held);
  }
}
