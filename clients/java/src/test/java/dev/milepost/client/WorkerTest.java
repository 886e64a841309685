package dev.milepost.client;

import static dev.milepost.client.RunningWorker.take;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Workers against one service. */
class WorkerTest {
  private static Service service;
  private static Milepost alice;
  private static Milepost client;

  private final String function = Service.uniqueFunction();
  private final BlockingQueue<Work> started = new ArrayBlockingQueue<>(10);

  @BeforeAll
  static void start() throws Exception {
    service = new Service();
    alice = service.client("CALLER");
    client = service.client("WORKER");
  }

  @AfterAll
  static void stop() throws Exception {
    service.close();
  }

  private WorkerBuilder worker(Handler handler) {
    return Worker.builder(client).handle(function, handler);
  }

  private String create() {
    return alice.create(function).id();
  }

  private static Operation end(String id) {
    Operation operation = alice.await(id, Duration.ofMinutes(1));
    assertTrue(operation.status().isTerminal(), operation::toString);
    return operation;
  }

  /** Waits for the interruption, and returns the reason. */
  private static RuntimeException awaitReason(Work work) {
    try {
      Thread.sleep(60_000);
      throw new AssertionError("not interrupted");
    } catch (InterruptedException interruption) {
      return work.reason().orElseThrow();
    }
  }

  @Test
  void failuresAreTriedAgainWithTheCheckpoint() throws Exception {
    List<String> attempts = new ArrayList<>();
    Handler handler =
        work -> {
          long step = work.checkpoint().map(Payload::asLong).orElse(0L);
          attempts.add(work.operation().attempt() + " " + step);
          if (step == 2) {
            return step;
          }
          work.saveCheckpoint(step + 1);
          throw new RetryLater(Duration.ofMillis(1), "not yet");
        };
    try (RunningWorker running = new RunningWorker(worker(handler))) {
      Operation operation = end(create());
      assertEquals(2, operation.result().orElseThrow().asLong());
      assertEquals(2, operation.failedAttempts());
      assertEquals(List.of("1 0", "2 1", "3 2"), attempts);
    }
  }

  @Test
  void progressIsStoredAndRefusedReportsAreThrown() throws Exception {
    Handler handler =
        work -> {
          Report large = new Report().checkpoint("x".repeat(65_537));
          assertThrows(IllegalArgumentException.class, () -> work.report(large));
          Report wordy = new Report().message("x".repeat(65_537));
          assertThrows(IllegalArgumentException.class, () -> work.report(wordy));
          for (int i = 0; i < 100; i++) {
            work.progress(i / 200.0, "step " + i);
          }
          work.flush();
          Operation now = alice.get(work.operation().id());
          assertEquals(Optional.of("step 99"), now.progressMessage());
          work.progress(0.1);
          assertThrows(ProgressDecreaseException.class, work::flush);
          work.progress(0.6);
          work.progress(0.1);
          RunningWorker.eventually("refusal", () -> isRefused(work));
          work.progress(0.7, "the last");
          return "good";
        };
    try (RunningWorker running = new RunningWorker(worker(handler))) {
      Operation operation = end(create());
      assertEquals("good", operation.result().map(Payload::asText).orElse("" + operation.errors()));
      assertEquals(Optional.of("the last"), operation.progressMessage());
    }
  }

  private static boolean isRefused(Work work) {
    try {
      work.report(new Report());
      return false;
    } catch (ProgressDecreaseException refusal) {
      return true;
    }
  }

  @Test
  void interruptionsHaveTheirReason() throws Exception {
    BlockingQueue<RuntimeException> reasons = new ArrayBlockingQueue<>(10);
    Handler handler =
        work -> {
          started.add(work);
          reasons.add(awaitReason(work));
          return "lost";
        };
    try (RunningWorker running = new RunningWorker(worker(handler).concurrency(1))) {
      String id = create();
      Work work = take(started);
      alice.cancel(id);
      assertInstanceOf(CancelledException.class, take(reasons));
      assertThrows(CancelledException.class, () -> work.progress(0.5));
      CreateOptions options = new CreateOptions().runTimeout(Duration.ofSeconds(1));
      String late = alice.create(function, options).id();
      take(started);
      assertInstanceOf(StaleAttemptException.class, take(reasons));
      alice.cancel(late);
    }
  }

  @Test
  void requestedCancelsAreAcknowledged() throws Exception {
    Handler handler =
        work -> {
          started.add(work);
          assertTrue(work.awaitCancelRequest(Duration.ofMinutes(1)));
          throw new AcknowledgeCancellation();
        };
    try (RunningWorker running = new RunningWorker(worker(handler))) {
      String id = create();
      take(started);
      alice.cancel(id, new CancelOptions().grace(Duration.ofSeconds(30)));
      Operation operation = end(id);
      assertEquals(Status.CANCELLED, operation.status());
      assertTrue(operation.cancelDeliveredTime().isPresent());
    }
  }

  @Test
  void acknowledgementsWithoutARequestFail() throws Exception {
    Handler handler =
        work -> {
          throw new AcknowledgeCancellation();
        };
    try (RunningWorker running = new RunningWorker(worker(handler))) {
      Operation operation = end(alice.create(function, new CreateOptions().maxAttempts(1)).id());
      assertEquals("CancellationNotRequested", operation.errors().get(0).code());
    }
  }

  @Test
  void stoppedWorkersReleaseWhatTheyCannotFinish() throws Exception {
    AtomicInteger count = new AtomicInteger();
    Handler handler =
        work -> {
          started.add(work);
          assertInstanceOf(WorkerStoppedException.class, awaitReason(work));
          switch (count.incrementAndGet()) {
            case 1 -> sleepUninterruptibly(Duration.ofSeconds(10));
            case 2 -> {
              return "finished";
            }
            default -> {}
          }
          throw work.reason().orElseThrow();
        };
    List<String> ids = List.of(create(), create(), create());
    RunningWorker running = new RunningWorker(worker(handler).grace(Duration.ofMillis(100)));
    for (int i = 0; i < 3; i++) {
      take(started);
    }
    long begin = System.nanoTime();
    running.close();
    assertTrue(System.nanoTime() - begin < TimeUnit.SECONDS.toNanos(6));
    Map<Status, Integer> counts = new EnumMap<>(Status.class);
    for (String id : ids) {
      Operation operation = alice.get(id);
      assertEquals(0, operation.failedAttempts());
      counts.merge(operation.status(), 1, Integer::sum);
    }
    assertEquals(Map.of(Status.PENDING, 2, Status.COMPLETED, 1), counts);
  }

  private static void sleepUninterruptibly(Duration time) {
    long end = Clock.after(time);
    while (Clock.now() < end) {
      Thread.onSpinWait();
    }
  }

  @Test
  void releasedOperationsKeepTheLastCheckpoint() throws Exception {
    Handler handler =
        work -> {
          work.saveCheckpoint("at the end");
          started.add(work);
          throw awaitReason(work);
        };
    String id = create();
    RunningWorker running = new RunningWorker(worker(handler).grace(Duration.ZERO));
    take(started);
    running.close();
    Operation operation = alice.get(id);
    assertEquals(Status.PENDING, operation.status());
    assertEquals("at the end", operation.checkpoint().orElseThrow().asText());
  }

  @Test
  void clientsThatAHandlerClosesReleaseItsWork() throws Exception {
    Milepost own = service.client("WORKER");
    Handler handler =
        work -> {
          started.add(work);
          own.close(); // which interrupts the handler
          return "too late";
        };
    RunningWorker running = new RunningWorker(Worker.builder(own).handle(function, handler));
    String id = create();
    take(started);
    assertInstanceOf(ClientClosedException.class, running.failure());
    assertEquals(Status.PENDING, alice.get(id).status());
  }

  @Test
  void closedClientsReleaseTheWorkOfTheirWorkers() throws Exception {
    Milepost own = service.client("WORKER");
    Handler handler =
        work -> {
          started.add(work);
          throw awaitReason(work);
        };
    RunningWorker running = new RunningWorker(Worker.builder(own).handle(function, handler));
    String id = create();
    take(started);
    own.close();
    assertInstanceOf(ClientClosedException.class, running.failure());
    assertEquals(Status.PENDING, alice.get(id).status());
  }

  @Test
  void refusedClaimsEndTheWorker() {
    Worker worker = Worker.builder(alice).handle("f", work -> null).build();
    assertThrows(PermissionDeniedException.class, worker::run);
    assertThrows(IllegalStateException.class, worker::run);
  }

  @Test
  void interruptionsOfTheThreadStopTheWorker() throws Exception {
    Worker worker = worker(work -> null).build();
    CountDownLatch ended = new CountDownLatch(1);
    Thread thread =
        new Thread(
            () -> {
              worker.run();
              assertTrue(Thread.currentThread().isInterrupted());
              ended.countDown();
            });
    thread.start();
    thread.interrupt();
    assertTrue(ended.await(10, TimeUnit.SECONDS));
  }

  @Test
  void handlersThatIgnoreTheirInterruptionAreGivenUp() throws Exception {
    CountDownLatch goOn = new CountDownLatch(1);
    Handler handler =
        work -> {
          started.add(work);
          while (goOn.getCount() > 0 && work.operation().metadata().isEmpty()) {
            Thread.onSpinWait();
          }
          return "good";
        };
    try (RunningWorker running = new RunningWorker(worker(handler).concurrency(1))) {
      String id = create();
      take(started);
      alice.cancel(id);
      CreateOptions other = new CreateOptions().metadata(Map.of("is", "quick"));
      assertEquals(Status.COMPLETED, end(alice.create(function, other).id()).status());
      goOn.countDown();
    }
  }

  @Test
  void interruptionsThatAHandlerLeavesBehindDoNoHarm() throws Exception {
    Handler handler =
        work -> {
          Thread thread = Thread.currentThread();
          Threads.daemon(
                  () -> {
                    for (int i = 0; i < 20; i++) {
                      thread.interrupt();
                    }
                  },
                  "late")
              .start();
          thread.interrupt();
          return "good";
        };
    try (RunningWorker running = new RunningWorker(worker(handler))) {
      assertEquals("good", end(create()).result().orElseThrow().asText());
    }
  }
}
