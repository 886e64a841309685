package dev.milepost.client;

import static dev.milepost.client.RunningWorker.take;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnknownFieldSet;
import dev.milepost.v1.Acknowledgement;
import dev.milepost.v1.CreateOperationResponse;
import dev.milepost.v1.Operation;
import dev.milepost.v1.ProgressUpdate;
import dev.milepost.v1.StreamProgressRequest;
import dev.milepost.v1.StreamProgressResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import io.opentelemetry.api.GlobalOpenTelemetry;
import io.opentelemetry.api.OpenTelemetry;
import io.opentelemetry.api.baggage.Baggage;
import io.opentelemetry.api.baggage.propagation.W3CBaggagePropagator;
import io.opentelemetry.context.Scope;
import io.opentelemetry.context.propagation.ContextPropagators;
import java.time.Duration;
import java.time.Instant;
import java.util.HashSet;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** The client against answers that a real service cannot be made to give. */
class FakeTest {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
  private static final Metadata.Key<String> BAGGAGE =
      Metadata.Key.of("baggage", Metadata.ASCII_STRING_MARSHALLER);

  private FakeService fake;

  @BeforeEach
  void start() throws Exception {
    fake = new FakeService();
  }

  @AfterEach
  void stop() {
    fake.close();
  }

  private static CreateOperationResponse created() {
    return CreateOperationResponse.newBuilder()
        .setOperation(Operation.newBuilder().setId("op_1"))
        .build();
  }

  @Test
  void triesShareARequestIdAndFollowThePauseThatIsAskedFor() {
    List<StatusRuntimeException> failures =
        List.of(
            FakeService.refusal(Code.UNAVAILABLE, "DRAINING", Duration.ofMillis(200)),
            Status.INTERNAL.asRuntimeException(),
            Status.UNKNOWN.asRuntimeException());
    List<String> ids = new CopyOnWriteArrayList<>();
    List<Long> times = new CopyOnWriteArrayList<>();
    fake.create =
        request -> {
          ids.add(request.getRequestId());
          times.add(Clock.now());
          if (ids.size() <= failures.size()) {
            throw failures.get(ids.size() - 1);
          }
          return created();
        };
    AtomicInteger tokens = new AtomicInteger();
    try (Milepost client =
        fake.client().tokenSource(() -> "t" + tokens.incrementAndGet()).build()) {
      assertEquals("op_1", client.create("f").id());
    }
    assertEquals(4, ids.size());
    assertEquals(1, new HashSet<>(ids).size());
    assertEquals(36, ids.get(0).length());
    assertTrue(times.get(1) - times.get(0) >= Duration.ofMillis(200).toNanos());
    assertEquals(
        List.of("Bearer t1", "Bearer t2", "Bearer t3", "Bearer t4"),
        fake.headers.stream().map(headers -> headers.get(AUTHORIZATION)).toList());
  }

  @Test
  void limitsAreThrownAtOnce() {
    AtomicInteger tries = new AtomicInteger();
    fake.create =
        request -> {
          tries.incrementAndGet();
          throw FakeService.refusal(Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", Duration.ofSeconds(1));
        };
    try (Milepost client = fake.client().build()) {
      RateLimitedException limit =
          assertThrows(RateLimitedException.class, () -> client.create("f"));
      assertEquals(Duration.ofSeconds(1), limit.retryAfter().orElseThrow());
    }
    assertEquals(1, tries.get());
  }

  @Test
  void deadlinesBoundAllTries() {
    fake.create =
        request -> {
          throw Status.UNAVAILABLE.asRuntimeException();
        };
    long begin = Clock.now();
    try (Milepost client = fake.client().deadline(Duration.ofSeconds(2)).build()) {
      assertThrows(UnavailableException.class, () -> client.create("f"));
    }
    assertTrue(Clock.now() - begin < Duration.ofSeconds(8).toNanos());
  }

  @Test
  void tokenSourcesThatFailAreTemporary() {
    AtomicInteger tries = new AtomicInteger();
    TokenSource source =
        () -> {
          if (tries.incrementAndGet() > 2) {
            return "two words";
          }
          throw new IllegalStateException("the issuer is away");
        };
    try (Milepost client = fake.client().tokenSource(source).build()) {
      assertThrows(UnauthenticatedException.class, () -> client.create("f"));
      assertEquals(3, tries.get());
    }
    TokenSource broken =
        () -> {
          throw new NoClassDefFoundError("broken");
        };
    MilepostBuilder builder = fake.client().deadline(Duration.ofMillis(200));
    try (Milepost client = builder.tokenSource(broken).build()) {
      UnavailableException refusal =
          assertThrows(UnavailableException.class, () -> client.create("f"));
      assertInstanceOf(NoClassDefFoundError.class, refusal.getCause().getCause());
    }
  }

  @Test
  void workersThatCannotClaimEndWithTheReason() {
    ClientInterceptor broken =
        new ClientInterceptor() {
          @Override
          public <Q, R> ClientCall<Q, R> interceptCall(
              MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
            throw new NoClassDefFoundError("broken");
          }
        };
    try (Milepost client = fake.client().intercept(broken).build()) {
      Worker worker = Worker.builder(client).handle("f", work -> null).build();
      IllegalStateException reason = assertThrows(IllegalStateException.class, worker::run);
      assertInstanceOf(NoClassDefFoundError.class, reason.getCause());
    }
  }

  @Test
  void longestDeadlinesDoNotOverflow() {
    Duration longest = Duration.ofSeconds(Long.MAX_VALUE);
    try (Milepost client = fake.client().deadline(longest).build()) {
      // The fake has no such method: the call has reached it.
      ClaimOptions options = new ClaimOptions().timeout(Duration.ofSeconds(1));
      assertThrows(
          NotAvailableException.class, () -> client.workerCalls().claim(List.of("f"), options));
    }
    assertEquals(longest, Times.sum(longest, longest));
  }

  @Test
  void undecodableAnswersAreNotTriedAgain() {
    AtomicInteger tries = new AtomicInteger();
    UnknownFieldSet malformed =
        UnknownFieldSet.newBuilder()
            .addField(
                1, // the operation, which does not decode so
                UnknownFieldSet.Field.newBuilder()
                    .addLengthDelimited(ByteString.copyFrom(new byte[] {-1, -1}))
                    .build())
            .build();
    fake.create =
        request -> {
          tries.incrementAndGet();
          return CreateOperationResponse.newBuilder().setUnknownFields(malformed).build();
        };
    try (Milepost client = fake.client().build()) {
      assertThrows(UndecodableAnswerException.class, () -> client.create("f"));
    }
    assertEquals(1, tries.get());
  }

  @Test
  void loneSurrogatesAreNotSent() {
    fake.create = request -> created();
    try (Milepost client = fake.client().build()) {
      CreateOptions options = new CreateOptions().uniqueKey("\udc00");
      assertThrows(NotJsonException.class, () -> client.create("f", options));
      assertThrows(NotJsonException.class, () -> client.create("\ud800"));
    }
    assertTrue(fake.headers.isEmpty());
  }

  @Test
  void contextOfOpenTelemetryTravelsWithTheCall() {
    fake.create = request -> created();
    GlobalOpenTelemetry.resetForTest();
    GlobalOpenTelemetry.set(
        OpenTelemetry.propagating(ContextPropagators.create(W3CBaggagePropagator.getInstance())));
    try (Milepost client = fake.client().build();
        Scope scope = Baggage.builder().put("user", "alice").build().makeCurrent()) {
      client.create("f");
    } finally {
      GlobalOpenTelemetry.resetForTest();
    }
    assertEquals("user=alice", fake.headers.get(0).get(BAGGAGE));
  }

  private static Work hold(Milepost client, String id, Duration lease) {
    Instant now = Instant.now();
    Operation message =
        Operation.newBuilder()
            .setId(id)
            .setAttempt(1)
            .setRevision(2)
            .setStartTime(Times.to(now))
            .setLeaseExpireTime(Times.to(now.plus(lease)))
            .build();
    return new Work(client.progress(), dev.milepost.client.Operation.of(message), reason -> {});
  }

  private static StreamProgressResponse acknowledgement(ProgressUpdate update) {
    return StreamProgressResponse.newBuilder()
        .addAcknowledgements(
            Acknowledgement.newBuilder().setOperationId(update.getOperationId()).setAttempt(1))
        .build();
  }

  /** Receives updates, whether they come alone or together. */
  private static StreamObserver<StreamProgressRequest> each(Consumer<ProgressUpdate> use) {
    return new StreamObserver<>() {
      @Override
      public void onNext(StreamProgressRequest request) {
        request.getUpdatesList().forEach(use);
      }

      @Override
      public void onError(Throwable end) {}

      @Override
      public void onCompleted() {}
    };
  }

  @Test
  void mostUrgentLeasesAreRenewedFirstAndAllAfterAThird() throws Exception {
    BlockingQueue<String> order = new LinkedBlockingQueue<>();
    fake.stream =
        answers ->
            each(
                update -> {
                  order.add(update.getOperationId());
                  answers.onNext(acknowledgement(update));
                });
    try (Milepost client = fake.client().build()) {
      client
          .progress()
          .locked( // so that all are due at once
              () -> {
                hold(client, "slow", Duration.ofHours(1));
                hold(client, "fast", Duration.ofSeconds(3));
                hold(client, "middle", Duration.ofMinutes(1));
                Calls.sleep(Duration.ofMillis(300).toNanos());
              });
      List<String> found = List.of(take(order), take(order), take(order), take(order));
      assertEquals(List.of("fast", "middle", "slow", "fast"), found);
    }
  }

  @Test
  void streamsHonourRetryInfoAndSendOnlyWhatWasNotAnswered() throws Exception {
    AtomicInteger streams = new AtomicInteger();
    List<Long> begins = new CopyOnWriteArrayList<>();
    BlockingQueue<ProgressUpdate> updates = new LinkedBlockingQueue<>();
    fake.stream =
        answers -> {
          boolean isFirst = streams.incrementAndGet() == 1;
          begins.add(Clock.now());
          return each(
              update -> {
                if (isFirst && update.hasProgress()) {
                  begins.set(0, Clock.now());
                  answers.onError(
                      FakeService.refusal(
                          Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", Duration.ofMillis(600)));
                } else {
                  updates.add(update);
                  answers.onNext(acknowledgement(update));
                }
              });
        };
    try (Milepost client = fake.client().build()) {
      Work answered = hold(client, "answered", Duration.ofHours(1));
      Work limited = hold(client, "limited", Duration.ofHours(1));
      take(updates);
      take(updates);
      limited.progress(0.5, "half");
      ProgressUpdate again = take(updates);
      assertEquals(List.of("limited", 0.5), List.of(again.getOperationId(), again.getProgress()));
      limited.flush();
      assertEquals(2, streams.get());
      assertTrue(updates.isEmpty());
      assertTrue(begins.get(1) - begins.get(0) >= Duration.ofMillis(600).toNanos());
      answered.detach();
    }
  }

  @Test
  void brokenStreamsSendTheNewestReportsAgain() throws Exception {
    AtomicInteger streams = new AtomicInteger();
    BlockingQueue<ProgressUpdate> updates = new LinkedBlockingQueue<>();
    fake.stream =
        answers -> {
          boolean isFirst = streams.incrementAndGet() == 1;
          return each(
              update -> {
                updates.add(update);
                if (isFirst) {
                  answers.onError(Status.INTERNAL.asRuntimeException());
                } else {
                  answers.onNext(acknowledgement(update));
                }
              });
        };
    try (Milepost client = fake.client().build()) {
      Work work = hold(client, "op", Duration.ofHours(1));
      work.saveCheckpoint("state");
      work.flush();
      assertTrue(take(updates).hasCheckpoint());
      assertTrue(take(updates).hasCheckpoint());
      work.progress(0.5);
      work.flush();
      ProgressUpdate last = take(updates);
      assertEquals(List.of(0.5, false), List.of(last.getProgress(), last.hasCheckpoint()));
    }
  }
}
