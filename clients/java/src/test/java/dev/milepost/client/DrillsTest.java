package dev.milepost.client;

import static dev.milepost.client.RunningWorker.eventually;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

/** Workers in trouble: many operations in hand, a service that restarts, a process that dies. */
class DrillsTest {
  private static final int COUNT = 500;
  private static final int KILLED = 137;

  private final String function = Service.uniqueFunction();
  private final CountDownLatch goOn = new CountDownLatch(1);
  private final AtomicInteger inHand = new AtomicInteger();

  private static List<String> create(Milepost client, String function, int count) {
    List<String> ids = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      ids.add(client.create(function).id());
    }
    return ids;
  }

  /** Reports until it may end. */
  private Object work(Work work) throws InterruptedException {
    inHand.incrementAndGet();
    int step = 0;
    do {
      step++;
      work.progress(Math.min(1, step / 100.0), "step " + step);
    } while (!goOn.await(5, TimeUnit.SECONDS));
    return work.operation().attempt();
  }

  private static void assertCompletedAtOnce(Milepost client, String id) {
    Operation operation = client.await(id, Duration.ofMinutes(2));
    assertEquals(Status.COMPLETED, operation.status(), () -> id + ": " + operation.errors());
    assertEquals(1, operation.attempt());
  }

  @Test
  void bigWorkersLoseNothingAtTheDefaultLimits() throws Exception {
    try (Service service =
        new Service(
            "--limited",
            "--set",
            "active_operations_max=1000",
            "--set",
            "creates_per_minute=1000")) {
      Milepost alice = service.client("CALLER");
      WorkerBuilder worker =
          Worker.builder(service.client("WORKER"))
              .handle(function, this::work)
              .concurrency(COUNT)
              .lease(Duration.ofSeconds(10));
      try (RunningWorker running = new RunningWorker(worker)) {
        List<String> ids = create(alice, function, COUNT);
        eventually("all operations in hand", () -> inHand.get() == COUNT);
        Thread.sleep(25_000); // two leases and a half
        goOn.countDown();
        ids.forEach(id -> assertCompletedAtOnce(alice, id));
        assertEquals(COUNT, inHand.get());
      }
    }
  }

  @Test
  void workSurvivesRestartsOfTheService() throws Exception {
    try (Service service = new Service()) {
      Milepost alice = service.client("CALLER");
      WorkerBuilder worker =
          Worker.builder(service.client("WORKER"))
              .handle(function, this::work)
              .lease(Duration.ofSeconds(5));
      try (RunningWorker running = new RunningWorker(worker)) {
        List<String> ids = create(alice, function, 5);
        eventually("all operations in hand", () -> inHand.get() == 5);
        service.perform("kill");
        goOn.countDown();
        Thread.sleep(2_000);
        service.perform("start");
        ids.forEach(id -> assertCompletedAtOnce(alice, id));
      }
    }
  }

  /** A worker that kills itself once its checkpoint is stored. */
  static final class Victim {
    private Victim() {}

    public static void main(String[] arguments) {
      Milepost client = Milepost.builder(arguments[0]).apiKey(arguments[1]).build();
      Worker.builder(client)
          .handle(arguments[2], Victim::die)
          .lease(Duration.ofSeconds(5))
          .build()
          .run();
    }

    private static Object die(Work work) throws InterruptedException {
      work.report(new Report().progress(0.4).checkpoint(Map.of("frame", 400)));
      work.flush();
      ProcessHandle self = ProcessHandle.current();
      throw new IllegalStateException(kill(self.pid()));
    }

    private static String kill(long pid) {
      try {
        return "killed with " + new ProcessBuilder("kill", "-9", "" + pid).start().waitFor();
      } catch (java.io.IOException | InterruptedException problem) {
        return problem.toString();
      }
    }
  }

  @Test
  void killedWorkersLeaveTheirCheckpoint() throws Exception {
    try (Service service = new Service()) {
      Milepost alice = service.client("CALLER");
      String id = alice.create(function).id();
      String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
      String classes = System.getProperty("java.class.path");
      Process victim =
          new ProcessBuilder(
                  java,
                  "-cp",
                  classes,
                  Victim.class.getName(),
                  service.address(),
                  service.key("WORKER"),
                  function)
              .inheritIO()
              .start();
      assertEquals(KILLED, victim.waitFor());
      Handler handler = work -> work.checkpoint().orElseThrow().get("frame").asLong();
      WorkerBuilder successor = Worker.builder(service.client("WORKER")).handle(function, handler);
      try (RunningWorker running = new RunningWorker(successor)) {
        Operation operation = alice.await(id, Duration.ofMinutes(1));
        assertEquals(400, operation.result().orElseThrow().asLong());
        assertEquals(List.of(2, 1), List.of(operation.attempt(), operation.failedAttempts()));
      }
    }
  }
}
