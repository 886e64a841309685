package dev.milepost.client;

import com.google.protobuf.Any;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import com.google.protobuf.Struct;
import dev.milepost.v1.OperationServiceGrpc;
import dev.milepost.v1.WebhookServiceGrpc;
import dev.milepost.v1.WorkerServiceGrpc;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import java.time.Duration;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/** Calls: each with a credential, a deadline and a request id, tried again while that is safe. */
final class Calls {
  /**
   * The methods without a request id that can be sent twice: reads, and claims, as what an
   * unanswered claim has taken goes back to the service.
   */
  private static final Set<MethodDescriptor<?, ?>> REPEATABLE =
      Set.of(
          OperationServiceGrpc.getGetOperationMethod(),
          OperationServiceGrpc.getListOperationsMethod(),
          OperationServiceGrpc.getWaitOperationMethod(),
          OperationServiceGrpc.getListEventsMethod(),
          WebhookServiceGrpc.getGetSigningSecretMethod(),
          WebhookServiceGrpc.getListDeliveriesMethod(),
          WorkerServiceGrpc.getClaimOperationsMethod());

  private final Channel channel;
  private final Duration deadline;
  private volatile boolean isClosed;

  Calls(Channel channel, Duration deadline) {
    this.channel = channel;
    this.deadline = deadline;
  }

  Channel channel() {
    return channel;
  }

  Duration deadline() {
    return deadline;
  }

  void close() {
    isClosed = true;
  }

  void requireOpen() {
    if (isClosed) {
      throw new ClientClosedException();
    }
  }

  /** Returns the answer to a request within the deadline of a call. */
  <Q extends Message, R> R send(MethodDescriptor<Q, R> method, Q request) {
    return send(method, request, deadline);
  }

  /**
   * Returns the answer to a request. One that takes a request id and has none gets one, the same
   * for every try. The timeout bounds all tries.
   */
  <Q extends Message, R> R send(MethodDescriptor<Q, R> method, Q request, Duration timeout) {
    requireWellFormed(request);
    Q identified = identified(request);
    boolean isRepeatable = field(request, "request_id") != null || REPEATABLE.contains(method);
    long end = System.nanoTime() + Times.nanos(timeout);
    Backoff backoff = new Backoff(Backoff.MAX_PAUSE);
    while (true) {
      requireOpen();
      MilepostException error;
      try {
        return trySend(method, identified, end - System.nanoTime());
      } catch (StatusRuntimeException failure) {
        error = failure(failure);
      }
      long pause = backoff.pause(error);
      boolean isLate = System.nanoTime() + pause - end >= 0;
      if (!isRepeatable || !Disruption.isPassing(error) || isLate) {
        throw error;
      }
      sleep(pause);
    }
  }

  private <Q, R> R trySend(MethodDescriptor<Q, R> method, Q request, long timeoutNanos) {
    CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(timeoutNanos, TimeUnit.NANOSECONDS);
    return ClientCalls.blockingUnaryCall(channel, method, options, request);
  }

  /** Returns the typed exception of a failed call. */
  MilepostException failure(StatusRuntimeException failure) {
    requireOpen();
    boolean isCancelled = failure.getStatus().getCode() == Status.Code.CANCELLED;
    if (isCancelled && Thread.currentThread().isInterrupted()) {
      return new CallInterruptedException(failure);
    }
    return Refusals.rebuild(failure);
  }

  static String newRequestId() {
    return UUID.randomUUID().toString();
  }

  /** Waits for so many nanoseconds, unless the thread is interrupted. */
  static void sleep(long nanos) {
    try {
      TimeUnit.NANOSECONDS.sleep(nanos);
    } catch (InterruptedException interruption) {
      throw CallInterruptedException.mark(interruption);
    }
  }

  private static FieldDescriptor field(Message request, String name) {
    return request.getDescriptorForType().findFieldByName(name);
  }

  @SuppressWarnings("unchecked") // a builder builds the type that it came from
  private static <Q extends Message> Q identified(Q request) {
    FieldDescriptor field = field(request, "request_id");
    if (field == null || request.hasField(field)) {
      return request;
    }
    return (Q) request.toBuilder().setField(field, newRequestId()).build();
  }

  /** Refuses lone surrogates in any text, because they would arrive as question marks. */
  private static void requireWellFormed(Message message) {
    message.getAllFields().values().forEach(Calls::requireWellFormedValue);
  }

  private static void requireWellFormedValue(Object value) {
    if (value instanceof String text) {
      Json.wellFormed(text);
    } else if (value instanceof List<?> items) {
      items.forEach(Calls::requireWellFormedValue);
    } else if (value instanceof Message message && !isChecked(message)) {
      requireWellFormed(message);
    }
  }

  /** Returns true for what was checked when it was made. */
  private static boolean isChecked(Message message) {
    return message instanceof Struct || message instanceof Any;
  }
}
