package dev.milepost.client;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;

/** One operation in the hands of a worker, until its handler has ended or is given up. */
final class Execution implements Runnable {
  /** How long a handler whose work is over may still occupy its worker. */
  private static final Duration MAX_PATIENCE = Duration.ofSeconds(5);

  private static final Logger LOG = System.getLogger("dev.milepost.client");

  /**
   * How the operation is ended.
   *
   * @param isRetryable an exception of the handler is worth another attempt
   * @param endTimeout the time in which the end is tried again
   * @param onEnd called when the operation occupies the worker no more, perhaps twice
   */
  record Terms(boolean isRetryable, Duration endTimeout, Consumer<Execution> onEnd) {}

  /** What a handler has returned or thrown. */
  private record Outcome(Object value, Throwable problem) {}

  private final Milepost milepost;
  private final Handler handler;
  private final Terms terms;
  private final Work work;
  private final WorkEnd end;
  private final AtomicBoolean isGivenBack = new AtomicBoolean();
  private Thread thread; // that is to be interrupted
  private boolean isInterrupted; // by this execution
  private boolean isOver;
  private boolean isLeaving;
  private boolean isProgramEnding;
  private boolean isDone;

  Execution(Milepost milepost, Operation operation, Handler handler, Terms terms) {
    this.milepost = milepost;
    this.handler = handler;
    this.terms = terms;
    this.work = new Work(milepost.progress(), operation, reason -> stop(reason));
    this.end = new WorkEnd(milepost, work, terms.endTimeout());
  }

  String id() {
    return work.operation().id();
  }

  boolean isCancelRequested() {
    return work.isCancelRequested();
  }

  /** Interrupts the handler, because its worker stops; the operation is then given back. */
  void leave() {
    work.stop(new WorkerStoppedException());
    synchronized (this) {
      isLeaving = true;
      interrupt();
    }
  }

  /** Interrupts the handler, because its work is over; it is given up if it goes on. */
  private void stop(MilepostException reason) {
    LOG.log(Level.INFO, () -> id() + " was taken away: " + reason.getMessage());
    synchronized (this) {
      isOver = true;
      interrupt();
    }
    Threads.schedule(milepost.timer(), this::giveUp, MAX_PATIENCE.toNanos());
  }

  private synchronized void interrupt() {
    if (thread != null) {
      isInterrupted = true;
      thread.interrupt();
    }
  }

  private void giveUp() {
    synchronized (this) {
      if (isDone) {
        return;
      }
    }
    LOG.log(Level.WARNING, () -> id() + " is over, and its handler goes on all the same");
    terms.onEnd().accept(this);
  }

  /** Gives the operation back, once, even if its handler goes on. */
  void giveBack() {
    if (!isGivenBack.compareAndSet(false, true)) {
      return;
    }
    try {
      milepost.releases().giveBack(milepost, work);
    } catch (RuntimeException problem) { // the lease runs out
      LOG.log(Level.INFO, () -> id() + " was not released: " + problem.getMessage());
    } finally {
      work.detach();
    }
  }

  /** Calls the handler and ends the operation. Nothing is thrown. */
  @Override
  public void run() {
    try {
      perform();
    } catch (Throwable problem) { // was logged, and stored where that is possible
      LOG.log(Level.DEBUG, () -> id() + " ended with " + problem);
    } finally {
      terms.onEnd().accept(this);
    }
  }

  /** Calls the handler and ends the operation. Throws the exception of the handler. */
  void perform() throws Exception {
    begin();
    try {
      Outcome outcome = call();
      work.end();
      noteInterruption();
      finish(outcome);
      Execution.<Exception>rethrow(outcome.problem());
    } finally {
      work.detach();
      done();
    }
  }

  private synchronized void begin() {
    thread = Thread.currentThread();
    if (isOver || isLeaving) {
      interrupt();
    }
  }

  private synchronized void done() {
    thread = null;
    isDone = true;
    if (isInterrupted) {
      Thread.interrupted(); // the thread may go on with other work
    }
    if (isProgramEnding) {
      Thread.currentThread().interrupt();
    }
  }

  /**
   * Clears an interruption. One that is not of this execution was left behind by the handler, or
   * asks the program to end: then the operation of a program is ended with one try.
   */
  private synchronized void noteInterruption() {
    if (Thread.interrupted() && !isInterrupted && !terms.isRetryable()) {
      isProgramEnding = true;
      end.tryOnce();
    }
  }

  private Outcome call() {
    try {
      return new Outcome(handler.handle(work), null);
    } catch (InterruptedException problem) {
      if (!isStopped()) {
        Thread.currentThread().interrupt();
      }
      return new Outcome(null, problem);
    } catch (Throwable problem) { // even an overflow of the stack or of the memory
      return new Outcome(null, problem);
    }
  }

  /** Throws the problem, if any, which may be of any class: E is erased. */
  @SuppressWarnings("unchecked")
  private static <E extends Throwable> void rethrow(Throwable problem) throws E {
    if (problem != null) {
      throw (E) problem;
    }
  }

  private synchronized boolean isStopped() {
    return isOver || isLeaving;
  }

  private synchronized boolean isOver() {
    return isOver;
  }

  /** Ends the operation as the handler ended, or gives it back, unless its work is over. */
  private void finish(Outcome outcome) {
    while (!isOver()) {
      try {
        if (outcome.problem() != null && isStopped()) {
          giveBack();
        } else {
          end(outcome);
        }
        return;
      } catch (CallInterruptedException interruption) {
        noteInterruption();
        if (isStopped() && !isOver()) {
          giveBack();
          return;
        }
      } catch (RuntimeException refusal) {
        refuse(refusal, outcome);
        return;
      }
    }
    work.throwIfOver();
  }

  private void refuse(RuntimeException refusal, Outcome outcome) {
    if (Disruption.isOver(refusal)) {
      LOG.log(Level.INFO, () -> id() + " was taken away: " + refusal.getMessage());
    } else {
      LOG.log(Level.ERROR, id() + " is left unfinished", refusal);
    }
    if (outcome.problem() == null) {
      throw refusal;
    }
    outcome.problem().addSuppressed(refusal);
  }

  /** Completes the operation, or ends it for the reason. */
  private void end(Outcome outcome) {
    if (outcome.problem() != null) {
      end.fail(outcome.problem(), terms.isRetryable());
      return;
    }
    try {
      end.complete(outcome.value());
    } catch (RuntimeException refusal) {
      if (!WorkEnd.isUnstorable(refusal)) {
        throw refusal;
      }
      end.refuseResult(refusal);
      if (!terms.isRetryable()) {
        throw refusal;
      }
    }
  }
}
