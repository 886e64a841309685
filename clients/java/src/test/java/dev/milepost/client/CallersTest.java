package dev.milepost.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Int32Value;
import io.grpc.Status.Code;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The calls of callers, and those of a worker by hand, against one service. */
class CallersTest {
  private static final String UNKNOWN_ID = "op_" + "0".repeat(24);

  private static Service service;
  private static Milepost alice;
  private static WorkerCalls worker;

  @BeforeAll
  static void start() throws Exception {
    service = new Service();
    alice = service.client("CALLER");
    worker = service.client("WORKER").workerCalls();
  }

  @AfterAll
  static void stop() throws Exception {
    service.close();
  }

  private static Operation create() {
    return alice.create(Service.uniqueFunction());
  }

  private static WriteOptions write() {
    return new WriteOptions();
  }

  @Test
  void createSetsEveryField() {
    Instant schedule = Instant.now().plusSeconds(3600).truncatedTo(ChronoUnit.MICROS);
    Map<String, Object> metadata = Map.of("a", Arrays.asList(1.5, null, "ü"), "b", Map.of());
    CreateOptions options =
        new CreateOptions()
            .version("2")
            .metadata(metadata)
            .requestId("java-1")
            .originalRequestId("web-7")
            .ttl(Duration.ofHours(1))
            .retryAfter(Duration.ofSeconds(2))
            .maxAttempts(5)
            .retryPolicy(new RetryPolicy(Duration.ZERO, 3, Duration.ofMinutes(1)))
            .queueTimeout(Duration.ofMinutes(1))
            .runTimeout(Duration.ofMinutes(2))
            .scheduleTime(schedule)
            .priority(0)
            .uniqueKey("key-1")
            .uniqueKeyPolicy(UniqueKeyPolicy.REFUSE);
    Operation made = alice.create("video.transcode", options);
    assertEquals(
        List.of("video.transcode", Optional.of("2"), metadata, Optional.of("web-7"), 5, 0),
        List.of(
            made.function(),
            made.version(),
            made.metadata(),
            made.originalRequestId(),
            made.maxAttempts(),
            made.priority()));
    assertEquals(
        List.of(Duration.ofHours(1), Duration.ofSeconds(2)),
        List.of(made.ttl(), made.retryAfter()));
    assertEquals(Optional.of(Duration.ofMinutes(1)), made.queueTimeout());
    assertEquals(Optional.of(Duration.ofMinutes(2)), made.runTimeout());
    assertEquals(Optional.of(schedule), made.scheduleTime());
    assertEquals(Optional.of("key-1"), made.uniqueKey());
    assertEquals(new RetryPolicy(Duration.ZERO, 3, Duration.ofMinutes(1)), made.retryPolicy());
    assertEquals(Status.PENDING, made.status());
    assertEquals(Optional.of(NextStep.CLAIM), made.nextStep());
    assertTrue(alice.create("video.transcode", options).isReplayed());
    assertFalse(made.isReplayed());
    CreateOptions other = new CreateOptions().uniqueKey("key-1");
    Operation joined = alice.create("video.transcode", other);
    assertEquals(List.of(made.id(), true), List.of(joined.id(), joined.isJoined()));
    UniqueKeyTakenException taken =
        assertThrows(
            UniqueKeyTakenException.class,
            () -> alice.create("f", other.uniqueKeyPolicy(UniqueKeyPolicy.REFUSE)));
    assertEquals(made.id(), taken.operationId());
  }

  @Test
  void listsHaveTheItemsOfAllPages() {
    String function = Service.uniqueFunction();
    List<String> created = new ArrayList<>();
    for (int i = 0; i < 7; i++) {
      created.add(alice.create(function).id());
    }
    Collections.reverse(created);
    Pages<Operation> pages =
        alice.list(
            new ListOptions().function(function).pageSize(3).statuses(List.of(Status.PENDING)));
    assertEquals(created, pages.stream().map(Operation::id).toList());
    assertEquals(created.get(0), pages.iterator().next().id());
  }

  @Test
  void exceptionsHaveTheClassOfTheirReason() {
    OperationNotFoundException unknown =
        assertThrows(OperationNotFoundException.class, () -> alice.get(UNKNOWN_ID));
    assertEquals(
        List.of(Code.NOT_FOUND, "OPERATION_NOT_FOUND"), List.of(unknown.code(), unknown.reason()));
    InvalidRequestException invalid =
        assertThrows(
            InvalidRequestException.class,
            () -> alice.create(" ", new CreateOptions().version("v".repeat(300))));
    assertEquals(2, invalid.violations().size());
    IllegalTransitionException illegal =
        assertThrows(
            IllegalTransitionException.class, () -> worker.complete(create().id(), null, write()));
    assertEquals(Status.PENDING, illegal.status());
    assertEquals(List.of(Status.PROCESSING), illegal.allowed());
    assertEquals("complete", illegal.transition());
    Milepost stranger =
        service.keep(Milepost.builder(service.address()).apiKey("mk_wrong").build());
    assertThrows(UnauthenticatedException.class, () -> stranger.get(UNKNOWN_ID));
  }

  @Test
  void resultsKeepTheirValues() {
    Map<String, Object> withNull = new HashMap<>();
    withNull.put("", null);
    for (Object value :
        Arrays.asList(
            Payload.NULL,
            true,
            "",
            "😀 \u0000\ufffd",
            0.1,
            0x1p53,
            List.of(),
            withNull,
            "x".repeat(1_000_000))) {
      String id = create().id();
      worker.start(id, new StartOptions());
      worker.complete(id, value, write());
      Payload result = alice.result(id, Duration.ofMinutes(1)).orElseThrow();
      assertEquals(value instanceof Payload ? null : value, result.value());
    }
    String id = create().id();
    worker.start(id, new StartOptions());
    worker.complete(id, null, write());
    assertEquals(Optional.empty(), alice.result(id));
    String packed = create().id();
    worker.start(packed, new StartOptions());
    worker.complete(packed, Int32Value.of(7), write());
    assertEquals(Int32Value.of(7), alice.result(packed).orElseThrow().unpack(Int32Value.class));
  }

  @Test
  void resultSaysWhyThereIsNone() {
    String id = create().id();
    assertThrows(StillRunningException.class, () -> alice.result(id, Duration.ofMillis(50)));
    alice.cancel(id, new CancelOptions().reason("no need"));
    OperationCancelledException cancelled =
        assertThrows(OperationCancelledException.class, () -> alice.result(id));
    assertEquals(Optional.of("no need"), cancelled.operation().cancelReason());
    List<String> names = alice.events(id, 1).stream().map(OperationEvent::transition).toList();
    assertEquals(List.of("create", "cancel"), names);
    alice.delete(id);
    assertThrows(OperationDeletedException.class, () -> alice.get(id));
  }

  @Test
  void workersByHand() {
    String function = Service.uniqueFunction();
    String id = alice.create(function).id();
    ClaimOptions options = new ClaimOptions().timeout(Duration.ofSeconds(1)).worker("by hand");
    Operation claimed = worker.claim(List.of(function), options).get(0);
    assertEquals(id, claimed.id());
    WriteOptions write = write().attempt(claimed.attempt());
    Report report = new Report().progress(0.25).message("a quarter").checkpoint(List.of("at", 7));
    worker.updateProgress(id, report, write);
    assertThrows(
        CancellationNotRequestedException.class, () -> worker.acknowledgeCancellation(id, write));
    Operation released = worker.release(id, new ReleaseOptions().attempt(1).reason("later"));
    assertEquals(List.of(Status.PENDING, 0), List.of(released.status(), released.failedAttempts()));
    Operation again = worker.claim(List.of(function), new ClaimOptions()).get(0);
    assertThrows(StaleAttemptException.class, () -> worker.complete(id, null, write));
    assertEquals(List.of("at", 7.0), again.checkpoint().orElseThrow().asList());
    OperationError error = new OperationError("E", "m", Optional.of("s"), Map.of("n", 1.0));
    worker.fail(id, List.of(error), new FailOptions().attempt(2));
    OperationFailedException failed =
        assertThrows(OperationFailedException.class, () -> alice.result(id));
    assertEquals(List.of(error), failed.errors());
  }

  @Test
  void interruptionsEndCallsAndWatches() throws Exception {
    String id = create().id();
    for (Runnable call :
        List.<Runnable>of(() -> alice.await(id), () -> alice.watch(id).forEach(o -> {}))) {
      CompletableFuture<Object> outcome = new CompletableFuture<>();
      Thread thread =
          new Thread(
              () -> {
                try {
                  call.run();
                } catch (CallInterruptedException interrupted) {
                  outcome.complete(Thread.currentThread().isInterrupted());
                }
              });
      thread.start();
      thread.interrupt();
      assertEquals(true, outcome.get(10, TimeUnit.SECONDS));
    }
  }

  @Test
  void closeEndsAWatchOfAnotherThread() throws Exception {
    Watch watch = alice.watch(create().id());
    assertEquals(Status.PENDING, watch.iterator().next().status());
    CompletableFuture<Boolean> more =
        CompletableFuture.supplyAsync(() -> watch.iterator().hasNext());
    watch.close();
    assertEquals(false, more.get(10, TimeUnit.SECONDS));
  }

  @Test
  void closedClientsRefuseCalls() throws Exception {
    Milepost own = service.client("CALLER");
    String id = own.create("f").id();
    own.close();
    assertThrows(ClientClosedException.class, () -> own.get(id));
    assertThrows(ClientClosedException.class, () -> own.watch(id).iterator().hasNext());
  }

  @Test
  void unreachableServicesAreUnavailableWithinTheDeadline() {
    Duration deadline = Duration.ofMillis(300);
    try (Milepost away = Milepost.builder("127.0.0.1:1").deadline(deadline).build()) {
      long begin = System.nanoTime();
      assertThrows(UnavailableException.class, () -> away.get(UNKNOWN_ID));
      assertThrows(UnavailableException.class, () -> away.watch(UNKNOWN_ID).iterator().hasNext());
      assertTrue(System.nanoTime() - begin < TimeUnit.SECONDS.toNanos(5));
    }
  }

  @Test
  void watchesMissNoChangeOverRestartsOfTheService() throws Exception {
    try (Service own = new Service()) {
      Milepost caller = own.client("CALLER");
      WorkerCalls calls = own.client("WORKER").workerCalls();
      String function = Service.uniqueFunction();
      String id = caller.create(function).id();
      List<Status> seen = new ArrayList<>();
      for (Operation operation : caller.watch(id)) {
        seen.add(operation.status());
        if (operation.status() == Status.PENDING) {
          own.perform("kill");
          own.perform("start");
          calls.claim(List.of(function), new ClaimOptions());
        } else if (operation.status() == Status.PROCESSING) {
          own.perform("stop");
          own.perform("start");
          calls.complete(id, "end", write());
        }
      }
      Status[] expected = {Status.PENDING, Status.PROCESSING, Status.COMPLETED};
      assertArrayEquals(expected, seen.toArray());
    }
  }
}
