package dev.milepost.client;

import dev.milepost.v1.OperationServiceGrpc;
import dev.milepost.v1.WatchOperationRequest;
import dev.milepost.v1.WatchOperationResponse;
import io.grpc.CallOptions;
import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * The changes of one operation, up to its end, over as many connections as it takes. Every change
 * of status comes exactly once and in order; of the progress a slow reader gets only the newest
 * report.
 *
 * <p>For one thread, and one iteration. Any thread may close it, which ends the iteration. One that
 * has reached its end needs no close.
 */
public final class Watch implements Iterable<Operation>, AutoCloseable {
  /** How long a watch that has worked before tries to connect again. */
  private static final Duration MAX_OUTAGE = Duration.ofMinutes(5);

  private final Calls calls;
  private final Backoff backoff = new Backoff(Backoff.MAX_PAUSE);
  private final Context.CancellableContext context = Context.current().withCancellation();
  private final Iterator<Operation> changes = new Changes();
  private WatchOperationRequest request;
  private Iterator<WatchOperationResponse> items;
  private Operation next;
  private long end; // of the tries to connect again
  private boolean hasWorked;
  private boolean isEnded;

  Watch(Calls calls, String operationId, long afterRevision) {
    this.calls = calls;
    this.end = System.nanoTime() + Times.nanos(calls.deadline());
    this.request =
        WatchOperationRequest.newBuilder()
            .setOperationId(operationId)
            .setAfterRevision(afterRevision)
            .build();
  }

  /**
   * Returns the iteration, which waits for the next change. It throws a {@link MilepostException}
   * if the operation cannot be watched, or not any more.
   *
   * @return the same iteration for every call
   */
  @Override
  public Iterator<Operation> iterator() {
    return changes;
  }

  /** {@return the changes as a stream} */
  public Stream<Operation> stream() {
    return StreamSupport.stream(spliterator(), false).onClose(this::close);
  }

  /** Ends the watch, and the iteration of another thread. */
  @Override
  public void close() {
    context.cancel(null);
  }

  /** Waits for the next change; false after the last one. */
  private boolean advance() {
    if (next == null && hasWorked) {
      renew(); // not before: the reader may spend any time on a change
    }
    while (next == null && !isEnded && !context.isCancelled()) {
      try {
        read();
      } catch (StatusRuntimeException failure) {
        recover(failure);
      }
    }
    return next != null;
  }

  /** Reads one item. */
  private void read() {
    calls.requireOpen();
    if (items == null) {
      items = open();
    }
    if (!items.hasNext()) {
      isEnded = true;
      close();
      return;
    }
    WatchOperationResponse item = items.next();
    hasWorked = true;
    if (item.hasOperation()) {
      request = request.toBuilder().setAfterRevision(item.getOperation().getRevision()).build();
      next = Operation.of(item.getOperation());
    } else {
      renew();
    }
  }

  private Iterator<WatchOperationResponse> open() {
    Context previous = context.attach();
    try {
      return ClientCalls.blockingServerStreamingCall(
          calls.channel(),
          OperationServiceGrpc.getWatchOperationMethod(),
          CallOptions.DEFAULT,
          request);
    } finally {
      context.detach(previous);
    }
  }

  private void renew() {
    end = System.nanoTime() + MAX_OUTAGE.toNanos();
    backoff.reset();
  }

  /** Waits until the watch is to connect again, or throws what ends it. */
  private void recover(StatusRuntimeException failure) {
    items = null;
    if (context.isCancelled()) {
      return;
    }
    MilepostException error = calls.failure(failure);
    long pause = backoff.pause(error);
    if (!isTemporary(error) || System.nanoTime() + pause - end >= 0) {
      close();
      throw error;
    }
    Calls.sleep(pause);
  }

  /** Returns true if the watch is to connect again. A limit does not end one that has worked. */
  private boolean isTemporary(MilepostException error) {
    return error instanceof UnavailableException
        || Disruption.isDisruption(error, hasWorked)
        || (hasWorked && error instanceof LimitReachedException);
  }

  /** The iteration over the changes. */
  private final class Changes implements Iterator<Operation> {
    @Override
    public boolean hasNext() {
      return advance();
    }

    @Override
    public Operation next() {
      if (!advance()) {
        throw new NoSuchElementException();
      }
      Operation operation = next;
      next = null;
      return operation;
    }
  }
}
