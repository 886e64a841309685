/** One operation on the progress stream: its newest report, and the lease that reports renew. */
import { create } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { Backoff, clock } from "./backoff.js";
import { Bell } from "./bell.js";
import type { ProgressReport } from "./client.js";
import { isOver, MilepostError } from "./errors.js";
import { type ProgressUpdate, ProgressUpdateSchema } from "./gen/milepost/v1/worker_service_pb.js";
import { toAny, wellFormed } from "./json.js";
import type { Operation } from "./operation.js";

/** The assumed lease of an operation without one, which is still watched for a cancel. */
const DEFAULT_LEASE_MS = 30_000;
/**
 * The delay of the first report, which makes the service watch for a cancel: work that ends before
 * needs none.
 */
const FIRST_REPORT_DELAY_MS = 200;
/** How long a last report may wait for its place on the stream. */
const SEND_TIMEOUT_MS = 1_000;
/** Renewals per lease: two may be lost before the lease is. */
const RENEWALS_PER_LEASE = 3;
/** Share of the time between two renewals by which one may come early, together with others. */
const EARLY_SHARE = 0.1;
/** How long a newer report waits for the answer to the last one. */
const MAX_ANSWER_MS = 2_000;

/**
 * The limits of what is reported, in bytes and characters. A message that is too large for gRPC
 * would end the reports of all operations on the stream.
 */
const MAX_CHECKPOINT_BYTES = 65_536;
const MAX_TYPE_URL_LENGTH = 2_048;
const MAX_MESSAGE_LENGTH = 65_536;

/** A report as it is sent. */
interface PackedReport {
  readonly progress?: number;
  readonly message?: string;
  readonly checkpoint?: Any;
}

/** The part of the progress stream that an operation needs. */
export interface Outbox {
  /** Send the newest report soon. */
  enqueue(held: HeldOperation): void;
  /** Send nothing more about the operation. */
  drop(held: HeldOperation): void;
}

/** What the work on an operation wants to know. */
export interface Holder {
  /** Called once, with the reason, when the work must stop. */
  onOver(reason: MilepostError): void;
  /** Called when the owner asks to cancel the operation. */
  onCancelRequested(): void;
}

/** A report that was sent: its version, and the time. */
interface SentReport {
  readonly version: number;
  readonly time: number;
}

/**
 * An operation whose work is reported on the stream, from `ProgressStream.hold` to `close`.
 *
 * Only the newest report is kept. Times are those of the monotonic clock, in milliseconds.
 */
export class HeldOperation {
  readonly id: string;
  readonly attempt: number;
  /** The revision at the start of the attempt; its interruptions have later ones. */
  readonly revision: number;
  readonly leaseMs: number;
  /** The pauses after temporary refusals of a report. */
  readonly backoff = new Backoff();
  /** Time at which the lease is to be renewed, if nothing is reported before. */
  dueTime: number;
  /** Time from which the lease may be renewed together with others. */
  earlyTime: number;

  readonly #outbox: Outbox;
  readonly #holder: Holder;
  #report: PackedReport = {};
  #problem: MilepostError | undefined;
  readonly #taken = new Bell();
  readonly #answered = new Bell();
  #isEnding = false;
  #isUrgent = false;
  #isClosed = false;
  #version = 0;
  #sentVersion = 0;
  #storedVersion = 0;
  #checkpointVersion = 0;
  #renewalTime = clock();
  #unanswered: SentReport[] = [];

  constructor(outbox: Outbox, operation: Operation, holder: Holder) {
    this.#outbox = outbox;
    this.#holder = holder;
    this.id = operation.id;
    this.attempt = operation.attempt;
    this.revision = operation.revision;
    this.leaseMs = leaseMs(operation);
    this.dueTime = this.#renewalTime + Math.min(FIRST_REPORT_DELAY_MS, this.#intervalMs);
    this.earlyTime = this.dueTime;
  }

  get #intervalMs(): number {
    return this.leaseMs / RENEWALS_PER_LEASE;
  }

  /** Time at which the lease may run out: the smaller, the more urgent is a report. */
  get leaseEndTime(): number {
    return this.#renewalTime + this.leaseMs;
  }

  /**
   * Time from which a report may be sent.
   *
   * A newer one waits for the answer to the last one: so an answer is that of one report, and says
   * that this one is stored. The service commits one report a second, and would coalesce the others.
   */
  get readyTime(): number {
    const last = this.#unanswered.at(-1);
    if (last === undefined || this.#isUrgent) {
      return Number.NEGATIVE_INFINITY;
    }
    return Math.min(last.time + MAX_ANSWER_MS, this.dueTime);
  }

  /** True while a report that was sent may have no answer. */
  get isUnanswered(): boolean {
    return this.#unanswered.length > 0;
  }

  /** The newest report, or undefined if it was acknowledged since it was sent. */
  get unstored(): PackedReport | undefined {
    if (this.#version <= this.#storedVersion) {
      return undefined;
    }
    const { checkpoint: _, ...report } = this.#report;
    return this.hasUnstoredCheckpoint ? this.#report : report;
  }

  /**
   * Send this as soon as possible; it replaces a report that was not sent yet.
   *
   * @throws MilepostError if an earlier report was refused, or the work must stop.
   * @throws NotJson, RangeError or TypeError if the report cannot be sent: on the stream it would
   *   end the reports of all operations.
   */
  report({ progress, message, checkpoint }: ProgressReport): void {
    this.#throwProblem();
    requireType(progress, "number", "the progress");
    requireType(message, "string", "the message");
    const packed = toAny(checkpoint);
    if ((packed?.value.length ?? 0) > MAX_CHECKPOINT_BYTES) {
      throw new RangeError(`the checkpoint has more than ${MAX_CHECKPOINT_BYTES} bytes`);
    }
    if ((packed?.typeUrl.length ?? 0) > MAX_TYPE_URL_LENGTH) {
      throw new RangeError(`the typeUrl has more than ${MAX_TYPE_URL_LENGTH} characters`);
    }
    if ((message?.length ?? 0) > MAX_MESSAGE_LENGTH) {
      throw new RangeError(`the message has more than ${MAX_MESSAGE_LENGTH} characters`);
    }
    this.#report = {
      ...this.#report,
      ...(progress === undefined ? {} : { progress }),
      ...(message === undefined ? {} : { message: wellFormed(message, "message") }),
      ...(packed === undefined ? {} : { checkpoint: packed }),
    };
    this.#version += 1;
    if (packed !== undefined) {
      this.#checkpointVersion = this.#version;
    }
    this.#outbox.enqueue(this);
  }

  /**
   * Return when everything that was reported so far is stored.
   *
   * @throws MilepostError if a report was refused, or the work must stop.
   */
  async flush(): Promise<void> {
    const version = this.#version;
    for (;;) {
      this.#throwProblem();
      if (this.#storedVersion >= version) {
        return;
      }
      if (this.#isClosed) {
        throw new MilepostError(`the work on ${this.id} is over: its last report may be lost`);
      }
      this.#answered.clear();
      await this.#answered.wait();
      if (this.#storedVersion < version) {
        this.#outbox.enqueue(this);
      }
    }
  }

  /**
   * Return when the newest report is on the stream, or after `SEND_TIMEOUT_MS`.
   *
   * A call that stores it afterwards is not undone by an earlier one that is on the stream.
   */
  async send(): Promise<void> {
    this.#isUrgent = true;
    this.#outbox.enqueue(this);
    const end = clock() + SEND_TIMEOUT_MS;
    while (this.#sentVersion < this.#version && !this.#isClosed && clock() < end) {
      this.#taken.clear();
      await this.#taken.wait(end - clock());
    }
  }

  #throwProblem(): void {
    const problem = this.#problem;
    this.#problem = undefined;
    if (problem !== undefined) {
      throw problem;
    }
  }

  /** True if a checkpoint may not be stored yet. */
  get hasUnstoredCheckpoint(): boolean {
    return this.#checkpointVersion > this.#storedVersion;
  }

  /**
   * Return the newest report, or a mere renewal if that is stored; it is sent now.
   *
   * @param isBare Return a mere renewal in any case, which the service does not count as a write.
   */
  take(now: number, isBare: boolean): ProgressUpdate {
    const report = isBare || this.#isEnding ? undefined : this.unstored;
    this.dueTime = now + this.#intervalMs;
    this.earlyTime = this.dueTime - this.#intervalMs * EARLY_SHARE;
    const version = report === undefined ? this.#storedVersion : this.#version;
    this.#unanswered.push({ version, time: now });
    this.#sentVersion = Math.max(this.#sentVersion, version);
    this.#isUrgent = false;
    this.#taken.ring();
    const { id: operationId, attempt } = this;
    return create(ProgressUpdateSchema, { ...report, operationId, attempt });
  }

  /** The size of the newest report, in bytes, at most. */
  get maxBytes(): number {
    const { message, checkpoint } = this.#report;
    const { value, typeUrl } = checkpoint ?? { value: "", typeUrl: "" };
    return 100 + 3 * ((message?.length ?? 0) + typeUrl.length) + value.length;
  }

  /**
   * Note that the service has stored a report, and renewed the lease with it.
   *
   * One acknowledgement may answer several reports. Only the oldest one is certainly stored.
   */
  acknowledge(): void {
    const oldest = this.#unanswered.shift();
    if (oldest !== undefined) {
      this.#storedVersion = Math.max(this.#storedVersion, oldest.version);
      this.#renewalTime = oldest.time;
    }
    this.backoff.reset();
    this.#answered.ring();
  }

  /** Note that a report was refused for now: it has its answer. */
  noteRefusal(): void {
    this.#unanswered.shift();
  }

  /** Note that the stream has ended: what was sent on it is not acknowledged any more. */
  loseAcknowledgements(): void {
    if (this.isUnanswered) {
      this.dueTime = Math.min(this.dueTime, this.#renewalTime + this.#intervalMs);
      this.earlyTime = Math.min(this.earlyTime, this.dueTime);
    }
    this.#unanswered = [];
  }

  /** Note that the newest report was stored by a call. */
  settle(): void {
    this.#storedVersion = this.#version;
    this.#answered.ring();
  }

  /** Send no report but renewals: the work is ending. */
  onlyRenew(): void {
    this.#isEnding = true;
    this.dueTime = Math.max(this.dueTime, this.#renewalTime + this.#intervalMs);
    this.earlyTime = Math.max(this.earlyTime, this.dueTime);
  }

  /** Note that the owner asks to cancel; a sign of life records that the worker knows. */
  requestCancel(): void {
    this.#isUrgent = true;
    this.#outbox.enqueue(this);
    this.#holder.onCancelRequested();
  }

  /** Note that a report was refused for good. The next call of `report` throws the error. */
  refuse(error: MilepostError): void {
    this.noteRefusal();
    this.#problem = error;
    if (isOver(error)) {
      this.close();
      this.#holder.onOver(error);
    } else {
      this.#report = {}; // every renewal would be refused like the report
      this.#answered.ring();
    }
  }

  /** Report nothing more, and let the lease run out. */
  close(): void {
    this.#isClosed = true;
    this.#outbox.drop(this);
    this.#taken.ring();
    this.#answered.ring();
  }
}

/** Return the length of the lease, by the clock of the service alone. */
function leaseMs({ leaseExpireTime, startTime }: Operation): number {
  if (leaseExpireTime === undefined || startTime === undefined) {
    return DEFAULT_LEASE_MS;
  }
  return Math.max(1, leaseExpireTime.getTime() - startTime.getTime());
}

function requireType(value: unknown, type: "number" | "string", what: string): void {
  if (value !== undefined && typeof value !== type) {
    throw new TypeError(`${what} is not a ${type}`);
  }
}
