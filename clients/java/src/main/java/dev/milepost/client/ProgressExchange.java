package dev.milepost.client;

import dev.milepost.v1.StreamProgressRequest;
import dev.milepost.v1.StreamProgressResponse;
import dev.milepost.v1.WorkerServiceGrpc;
import io.grpc.CallOptions;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.ClientResponseObserver;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.Lock;

/** One connection of the progress stream, from the first report to its end. */
final class ProgressExchange
    implements ClientResponseObserver<StreamProgressRequest, StreamProgressResponse> {
  private final Calls calls;
  private final ProgressStream stream;
  private final Lock lock;
  private final Condition changed;
  private ClientCallStreamObserver<StreamProgressRequest> requests;
  private MilepostException error;
  private boolean wasAnswered;
  private boolean isEnded;

  ProgressExchange(Calls calls, ProgressStream stream, Lock lock, Condition changed) {
    this.calls = calls;
    this.stream = stream;
    this.lock = lock;
    this.changed = changed;
  }

  /** Sends reports until the end of the stream, and returns its reason, or null. Has the lock. */
  MilepostException run() throws InterruptedException {
    try {
      unlocked(this::open);
      StreamProgressRequest message;
      while ((message = stream.nextMessage(this)) != null) {
        StreamProgressRequest next = message;
        unlocked(() -> requests.onNext(next));
      }
      if (!isEnded) {
        unlocked(() -> requests.onCompleted());
      }
    } catch (StatusRuntimeException failure) {
      end(Refusals.rebuild(failure));
    } catch (RuntimeException | Error failure) { // of an interceptor, or of the memory
      cancel();
      end(Refusals.typed(Refusal.of(Status.Code.UNKNOWN, "the stream failed", failure)));
    }
    while (!isEnded) {
      changed.await();
    }
    return error;
  }

  /** Returns true if the service has answered. */
  boolean wasAnswered() {
    return wasAnswered;
  }

  boolean isEnded() {
    return isEnded;
  }

  /** Returns true if the connection takes another message. */
  boolean isReady() {
    return requests.isReady();
  }

  void cancel() {
    if (requests != null) {
      requests.cancel("the client is closed", null);
    }
  }

  private void open() {
    ClientCalls.asyncBidiStreamingCall(
        calls.channel().newCall(WorkerServiceGrpc.getStreamProgressMethod(), CallOptions.DEFAULT),
        this);
  }

  private void unlocked(Runnable task) {
    lock.unlock();
    try {
      task.run();
    } finally {
      lock.lock();
    }
  }

  @Override
  public void beforeStart(ClientCallStreamObserver<StreamProgressRequest> observer) {
    requests = observer;
    observer.setOnReadyHandler(() -> stream.locked(changed::signalAll));
  }

  @Override
  public void onNext(StreamProgressResponse response) {
    stream.locked(
        () -> {
          wasAnswered = true;
          stream.answers().take(response);
        });
  }

  @Override
  public void onError(Throwable failure) {
    MilepostException reason =
        Refusals.rebuild(Status.fromThrowable(failure).asRuntimeException(trailers(failure)));
    stream.locked(() -> end(reason));
  }

  private static io.grpc.Metadata trailers(Throwable failure) {
    return Status.trailersFromThrowable(failure);
  }

  @Override
  public void onCompleted() {
    stream.locked(() -> end(null));
  }

  private void end(MilepostException reason) {
    if (!isEnded) {
      isEnded = true;
      error = reason;
      changed.signalAll();
    }
  }
}
