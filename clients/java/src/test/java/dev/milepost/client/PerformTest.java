package dev.milepost.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.Optional;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The work on operations by their ids, without a worker. */
class PerformTest {
  private static Service service;
  private static Milepost alice;

  private final String id = alice.create(Service.uniqueFunction()).id();

  @BeforeAll
  static void start() throws Exception {
    service = new Service();
    alice = service.client("CALLER");
  }

  @AfterAll
  static void stop() throws Exception {
    service.close();
  }

  private void perform(Handler handler) throws Exception {
    alice.perform(id, new StartOptions().worker("by hand"), handler);
  }

  private Operation end() {
    Operation operation = alice.await(id, Duration.ofSeconds(30));
    assertTrue(operation.status().isTerminal());
    return operation;
  }

  @Test
  void resultsComplete() throws Exception {
    perform(
        work -> {
          work.progress(0.5, "half");
          return "done";
        });
    assertEquals("done", end().result().orElseThrow().asText());
    assertEquals(Optional.of("half"), end().progressMessage());
    assertEquals(Optional.of("by hand"), end().worker());
  }

  @Test
  void exceptionsFailForGoodAndAreThrown() {
    IllegalStateException problem = new IllegalStateException("broken");
    Handler handler =
        work -> {
          throw problem;
        };
    assertSame(problem, assertThrows(IllegalStateException.class, () -> perform(handler)));
    assertEquals("IllegalStateException", end().errors().get(0).code());
  }

  @Test
  void throwablesOfAnyClassFailTheOperationAndAreThrown() {
    Throwable problem = new Throwable("neither an exception nor an error");
    Handler handler =
        work -> {
          WorkerEndsTest.<Exception>throwAny(problem);
          return null;
        };
    assertSame(problem, assertThrows(Throwable.class, () -> perform(handler)));
    assertEquals("Throwable", end().errors().get(0).code());
  }

  @Test
  void retriesAreChosen() {
    Handler handler =
        work -> {
          throw new RetryLater(Duration.ofMinutes(1), "later");
        };
    assertThrows(RetryLater.class, () -> perform(handler));
    assertEquals(Status.PENDING, alice.get(id).status());
  }

  @Test
  void unstorableResultsFailAndAreThrown() {
    assertThrows(NotJsonException.class, () -> perform(work -> new Object()));
    assertEquals("UnstorableResult", end().errors().get(0).code());
  }

  @Test
  void cancelsInterruptAndAreThrown() {
    Handler handler =
        work -> {
          alice.cancel(id);
          Thread.sleep(60_000);
          return null;
        };
    assertThrows(CancelledException.class, () -> perform(handler));
    assertTrue(!Thread.currentThread().isInterrupted());
  }

  @Test
  void interruptedProgramsFailTheOperation() {
    Handler handler =
        work -> {
          Thread.currentThread().interrupt();
          Thread.sleep(60_000);
          return null;
        };
    assertThrows(InterruptedException.class, () -> perform(handler));
    assertTrue(Thread.interrupted());
    assertEquals("InterruptedException", end().errors().get(0).code());
  }

  @Test
  void refusedEndsAreThrown() {
    Handler handler =
        work -> {
          alice.workerCalls().complete(id, "another end", new WriteOptions());
          return "lost";
        };
    assertThrows(IllegalTransitionException.class, () -> perform(handler));
  }
}
