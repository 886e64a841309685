package dev.milepost.client;

import com.google.protobuf.Any;
import dev.milepost.v1.UpdateProgressRequest;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

/** The end of the work on one operation, which is sent until the service accepts or refuses it. */
final class WorkEnd {
  private static final Logger LOG = System.getLogger("dev.milepost.client");

  private final WorkerCalls calls;
  private final ProgressStream stream;
  private final Work work;
  private final String id;
  private final Map<String, String> requestIds = new HashMap<>();
  private Duration timeout;

  /** Takes the time in which the end is tried again. */
  WorkEnd(Milepost milepost, Work work, Duration timeout) {
    this.calls = milepost.workerCalls();
    this.stream = milepost.progress();
    this.work = work;
    this.id = work.operation().id();
    this.timeout = timeout;
  }

  /** Tries the end once: the program is interrupted. */
  void tryOnce() {
    timeout = Duration.ZERO;
  }

  /** Completes the operation, or throws what makes another end necessary. */
  void complete(Object result) {
    Any packed = readable("the result", () -> Json.toAny(result));
    storeLastReport();
    WriteOptions options = write("complete");
    untilFinal(
        packed == null ? 0 : packed.getSerializedSize(), () -> calls.complete(id, packed, options));
  }

  /** Ends the attempt because of the problem; an error that is refused is replaced. */
  void fail(Throwable problem, boolean isRetryable) {
    storeLastReport();
    Supplier<OperationError> error = () -> Failures.describe(problem);
    if (problem instanceof AcknowledgeCancellation) {
      String refusal = acknowledge();
      if (refusal == null) {
        return;
      }
      error = () -> new OperationError("CancellationNotRequested", refusal);
    }
    log(problem);
    fail(error, () -> options(problem, isRetryable));
  }

  /**
   * Fails the operation for good, because its result cannot be stored: every attempt would end so.
   */
  void refuseResult(RuntimeException refusal) {
    String message = "the result cannot be stored: " + Failures.describe(refusal).message();
    log(refusal);
    fail(() -> new OperationError("UnstorableResult", message), FailOptions::new);
  }

  private void fail(Supplier<OperationError> error, Supplier<FailOptions> options) {
    try {
      failWith("fail", readable("it", error), readable("it", options));
    } catch (RuntimeException refusal) {
      if (!isUnstorable(refusal)) {
        throw refusal;
      }
      String message = "The error was refused: " + Failures.describe(refusal).message();
      failWith("replace", new OperationError("InvalidError", message), new FailOptions());
    }
  }

  private static FailOptions options(Throwable problem, boolean isRetryable) {
    FailOptions options = new FailOptions();
    if (problem instanceof RetryLater later) {
      return options.retryDelay(later.delay());
    }
    return isRetryable && !(problem instanceof PermanentFailure) ? options.retryable() : options;
  }

  private void failWith(String kind, OperationError error, FailOptions options) {
    int size = readable("it", () -> error.toMessage().getSerializedSize());
    options.attempt(work.operation().attempt()).requestId(requestId(kind));
    untilFinal(size, () -> calls.fail(id, List.of(error), options));
  }

  /** Acknowledges the cancel; returns the text of the refusal if none was requested, or null. */
  private String acknowledge() {
    WriteOptions options = write("acknowledge");
    try {
      untilFinal(0, () -> calls.acknowledgeCancellation(id, options));
      return null;
    } catch (CancellationNotRequestedException refusal) {
      return refusal.getMessage();
    }
  }

  /**
   * Stores the last report by a call if the stream has not: the stream and the end of the operation
   * may meet different replicas.
   */
  private void storeLastReport() {
    UpdateProgressRequest.Builder last;
    try {
      last = stream.lastReport(work.held());
    } catch (InterruptedException interruption) {
      throw CallInterruptedException.mark(interruption);
    }
    if (last == null) {
      return;
    }
    WriteOptions options = write("report");
    try {
      Operation operation =
          untilFinal(0, () -> calls.updateProgress(id, new Report(last), options));
      operation.cancelRequestTime().ifPresent(requested -> work.requestCancel());
      stream.settle(work.held());
    } catch (MilepostException refusal) {
      if (Disruption.isOver(refusal) || refusal instanceof CallInterruptedException) {
        throw refusal;
      }
      LOG.log(Level.INFO, () -> "the last report of " + id + " is lost: " + refusal);
    }
  }

  private <T> T untilFinal(int size, Supplier<T> request) {
    return UntilFinal.send(timeout, size, request);
  }

  private WriteOptions write(String kind) {
    return new WriteOptions().attempt(work.operation().attempt()).requestId(requestId(kind));
  }

  /** Returns the same request id whenever a write of this kind is repeated. */
  private String requestId(String kind) {
    return requestIds.computeIfAbsent(kind, absent -> Calls.newRequestId());
  }

  /**
   * Returns what is read. Collections, records and exceptions are code of the user, and may fail.
   */
  private static <T> T readable(String what, Supplier<T> read) {
    try {
      return read.get();
    } catch (NotJsonException problem) {
      throw problem;
    } catch (Throwable problem) { // even an overflow of the stack
      throw new NotJsonException(what + " cannot be read: " + Failures.textOf(problem), problem);
    }
  }

  /** Returns true if another content may be accepted. */
  static boolean isUnstorable(RuntimeException problem) {
    return problem instanceof NotJsonException
        || problem instanceof InvalidRequestException
        || (problem instanceof MilepostException error && Disruption.isUnexplained(error));
  }

  private void log(Throwable problem) {
    try {
      LOG.log(Level.WARNING, "the work on " + id + " failed", problem);
    } catch (Throwable failure) { // of the methods of the problem
      LOG.log(Level.WARNING, "the work on " + id + " failed");
    }
  }
}
