package dev.milepost.client;

import dev.milepost.v1.ProgressUpdate;
import dev.milepost.v1.UpdateProgressRequest;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;

/**
 * One operation on the progress stream: its newest report, and the lease that reports renew. The
 * lock of the stream guards it. Times are those of {@link Clock}.
 */
final class HeldOperation {
  /** The assumed lease of an operation without one, which is still watched for a cancel. */
  private static final Duration DEFAULT_LEASE = Duration.ofSeconds(30);

  /**
   * The delay of the first report, which makes the service watch for a cancel: work that ends
   * before needs none.
   */
  private static final Duration FIRST_REPORT_DELAY = Duration.ofMillis(200);

  /** How long a newer report waits for the answer to the last one. */
  private static final Duration MAX_ANSWER_TIME = Duration.ofSeconds(2);

  /** The renewals per lease: two may be lost before the lease is. */
  private static final int RENEWALS_PER_LEASE = 3;

  /** The part of the time between two renewals by which one may come early, with others. */
  private static final int EARLY_PARTS = 10;

  /** The side of the work, which gets what the service says about the operation. */
  interface Holder {
    /** Called once, with the reason, when the work must stop. */
    void onOver(MilepostException reason);

    /** Called once, when a cancel is requested. */
    void onCancelRequested();
  }

  /** A report that was sent: its version, and the time. */
  private record SentReport(long version, long time) {}

  private final ProgressUpdate.Builder update;
  private final Holder holder;
  private final long revision;
  private final long leaseNanos;
  private final Backoff backoff = new Backoff(Backoff.MAX_PAUSE);
  private final Deque<SentReport> unanswered = new ArrayDeque<>();
  private MilepostException problem;
  private boolean isClosed;
  private boolean isUrgent;
  private boolean isCancelRequested;
  private long version;
  private long sentVersion;
  private long storedVersion;
  private long checkpointVersion;
  private long renewalTime = Clock.now();
  private long dueTime;
  private long earlyTime;

  HeldOperation(Operation operation, Holder holder) {
    this.holder = holder;
    revision = operation.revision();
    leaseNanos = lease(operation).toNanos();
    update =
        ProgressUpdate.newBuilder().setOperationId(operation.id()).setAttempt(operation.attempt());
    dueTime = renewalTime + Math.min(FIRST_REPORT_DELAY.toNanos(), interval());
    earlyTime = dueTime;
  }

  /** Returns the length of the lease, by the clock of the service alone. */
  private static Duration lease(Operation operation) {
    if (operation.leaseExpireTime().isEmpty() || operation.startTime().isEmpty()) {
      return DEFAULT_LEASE;
    }
    return Duration.between(
        operation.startTime().orElseThrow(), operation.leaseExpireTime().orElseThrow());
  }

  String id() {
    return update.getOperationId();
  }

  int attempt() {
    return update.getAttempt();
  }

  /** Returns the revision at the start of the attempt; its interruptions have later ones. */
  long revision() {
    return revision;
  }

  /** Returns the pauses after temporary refusals of a report. */
  Backoff backoff() {
    return backoff;
  }

  private long interval() {
    return leaseNanos / RENEWALS_PER_LEASE;
  }

  /** Returns the time at which the lease may run out: the smaller, the more urgent is a report. */
  long leaseEndTime() {
    return renewalTime + leaseNanos;
  }

  /** Returns the time at which the lease is to be renewed, if nothing is reported before. */
  long dueTime() {
    return dueTime;
  }

  /** Returns the time from which the lease may be renewed together with others. */
  long earlyTime() {
    return earlyTime;
  }

  /**
   * Returns the time from which a report may be sent. A newer one waits for the answer to the last
   * one: so an answer is that of one report, and says that this one is stored.
   */
  long readyTime() {
    if (unanswered.isEmpty() || isUrgent) {
      return Long.MIN_VALUE;
    }
    return Math.min(unanswered.getLast().time() + MAX_ANSWER_TIME.toNanos(), dueTime);
  }

  boolean isUnanswered() {
    return !unanswered.isEmpty();
  }

  boolean isUnstored() {
    return version > storedVersion;
  }

  boolean hasUnstoredCheckpoint() {
    return checkpointVersion > storedVersion;
  }

  boolean isClosed() {
    return isClosed;
  }

  long version() {
    return version;
  }

  /** Returns true if the report of this version is stored. */
  boolean isStored(long reported) {
    return storedVersion >= reported;
  }

  /** Returns true if the newest report is on the stream. */
  boolean isSent() {
    return sentVersion >= version;
  }

  /** Returns the newest report, for a call. */
  UpdateProgressRequest.Builder unstored() {
    UpdateProgressRequest.Builder request = UpdateProgressRequest.newBuilder();
    if (update.hasProgress()) {
      request.setProgress(update.getProgress());
    }
    if (update.hasMessage()) {
      request.setMessage(update.getMessage());
    }
    if (update.hasCheckpoint()) {
      request.setCheckpoint(update.getCheckpoint());
    }
    return request;
  }

  /** Makes the report part of the newest one. */
  void merge(UpdateProgressRequest report) {
    throwProblem();
    version++;
    if (report.hasProgress()) {
      update.setProgress(report.getProgress());
    }
    if (report.hasMessage()) {
      update.setMessage(report.getMessage());
    }
    if (report.hasCheckpoint()) {
      update.setCheckpoint(report.getCheckpoint());
      checkpointVersion = version;
    }
  }

  /** Throws the error of a report that was refused, once. */
  void throwProblem() {
    MilepostException found = problem;
    problem = null;
    if (found != null) {
      throw found;
    }
  }

  /** Lets the next report go out at once. */
  void hurry() {
    isUrgent = true;
  }

  /**
   * Returns the newest report, or a mere renewal if that is stored; it is sent now.
   *
   * @param isBare returns a mere renewal in any case, which the service does not count as a write
   */
  ProgressUpdate take(long now, boolean isBare) {
    dueTime = now + interval();
    earlyTime = dueTime - interval() / EARLY_PARTS;
    boolean isReport = !isBare && isUnstored();
    long taken = isReport ? version : storedVersion;
    unanswered.add(new SentReport(taken, now));
    sentVersion = Math.max(sentVersion, taken);
    isUrgent = false;
    return isReport
        ? update.build()
        : ProgressUpdate.newBuilder().setOperationId(id()).setAttempt(attempt()).build();
  }

  /**
   * Notes that the service has stored a report, and renewed the lease with it. One acknowledgement
   * may answer several reports, of which only the oldest one is certainly stored.
   */
  void acknowledge() {
    SentReport oldest = unanswered.poll();
    if (oldest != null) {
      renewalTime = oldest.time();
      settle(oldest.version());
    }
    backoff.reset();
  }

  /** Notes that this version is stored. A stored checkpoint is not sent again. */
  void settle(long stored) {
    storedVersion = Math.max(storedVersion, stored);
    if (!hasUnstoredCheckpoint()) {
      update.clearCheckpoint();
    }
  }

  /** Notes that a report was refused for now: it has its answer. */
  void noteRefusal() {
    unanswered.poll();
  }

  /** Notes that the stream has ended: what was sent on it is not acknowledged any more. */
  void loseAcknowledgements() {
    if (isUnanswered()) {
      dueTime = Math.min(dueTime, renewalTime + interval());
      earlyTime = Math.min(earlyTime, dueTime);
    }
    unanswered.clear();
  }

  /** Sends no report but renewals: the work is ending. */
  void onlyRenew() {
    dueTime = Math.max(dueTime, renewalTime + interval());
    earlyTime = Math.max(earlyTime, dueTime);
  }

  /** Notes that a cancel is requested; returns true for the first time. */
  boolean requestCancel() {
    if (isCancelRequested) {
      return false;
    }
    isCancelRequested = true;
    hurry();
    holder.onCancelRequested();
    return true;
  }

  /** Notes that a report was refused for good. The next one throws the error. */
  void refuse(MilepostException error) {
    noteRefusal();
    problem = error;
    if (Disruption.isOver(error)) {
      isClosed = true;
      holder.onOver(error);
    } else { // every renewal would be refused like the report
      update.clearProgress().clearMessage().clearCheckpoint();
    }
  }

  /** Reports nothing more, and lets the lease run out. */
  void close() {
    isClosed = true;
  }
}
