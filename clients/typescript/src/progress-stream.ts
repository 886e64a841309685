/**
 * The progress stream that all work of a client shares: it reconnects, and renews all leases.
 *
 * Reports leave it in the order of their urgency: first the operation whose lease runs out first.
 * Reports that are due share a message, and the next one follows after a short pause. After a
 * disconnection the newest report of every operation is sent again, because the service notifies a
 * stream of a cancel only if the operation was reported on it. After a rate limit the reports wait
 * for a while, and only leases are renewed, which the service does not limit.
 */
import { create } from "@bufbuild/protobuf";
import { Backoff, clock } from "./backoff.js";
import { Bell } from "./bell.js";
import type { Calls } from "./calls.js";
import { isDisruption } from "./disruption.js";
import {
  Cancelled,
  InternalError,
  LimitReached,
  type MilepostError,
  OperationExpired,
  StaleAttempt,
  StreamFull,
  Unavailable,
} from "./errors.js";
import {
  type Acknowledgement,
  type Interruption,
  InterruptionKind,
  type ProgressUpdate,
  type StreamProgressRequest,
  StreamProgressRequestSchema,
  type StreamProgressResponse,
  type UpdateError,
} from "./gen/milepost/v1/worker_service_pb.js";
import { HeldOperation, type Holder } from "./held-operation.js";
import type { Operation } from "./operation.js";
import { errorClass, rebuild } from "./refusal.js";
import { isTemporary } from "./retry.js";

/** Life of a stream after which the pauses begin anew. */
const STEADY_MS = 10_000;
/** Shortest pause after a rate limit, if a lease is to be renewed before the reports may go on. */
const MIN_LIMITED_PAUSE_MS = 250;
/** Time between two messages: what is reported within it is one message. */
const PACE_MS = 50;
/** Updates of one message, as many as the service accepts. */
const MAX_UPDATES = 1_000;
/** Size of a message of several updates. The largest update alone has less. */
const MAX_MESSAGE_BYTES = 512 * 1024;
/** How long `close` waits for the acknowledgements of the last reports. */
const CLOSE_TIMEOUT_MS = 5_000;
/** How long a stream without operations stays open. An open one keeps the process alive. */
const IDLE_MS = 1_000;

/** A stream that is open while operations are held. */
export class ProgressStream {
  readonly #calls: Calls;
  readonly #held = new Map<string, HeldOperation>();
  readonly #unsent = new Map<string, HeldOperation>();
  readonly #changed = new Bell();
  readonly #closing = new AbortController();
  #nextDueTime = Number.POSITIVE_INFINITY;
  /** Time until which only leases are renewed, after a rate limit. */
  #quietEndTime = Number.NEGATIVE_INFINITY;
  #wasAnswered = false;
  #running: Promise<void> | undefined;
  #abort: (() => void) | undefined;

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /**
   * Renew the lease of the operation from now on, and watch for its cancel.
   *
   * An earlier attempt of the operation is over: its work gets `StaleAttempt`.
   */
  hold(operation: Operation, holder: Holder): HeldOperation {
    this.#held.get(operation.id)?.refuse(staleAttempt(operation.id));
    const held = new HeldOperation(this, operation, holder);
    this.#held.set(held.id, held);
    this.#nextDueTime = Math.min(this.#nextDueTime, held.dueTime);
    this.#wake();
    return held;
  }

  /** Send the newest report of the operation soon, if it is still held. */
  enqueue(held: HeldOperation): void {
    if (this.#held.get(held.id) === held) {
      this.#unsent.set(held.id, held);
      this.#wake();
    }
  }

  /** Send nothing more about the operation. */
  drop(held: HeldOperation): void {
    if (this.#held.get(held.id) === held) {
      this.#held.delete(held.id);
      this.#unsent.delete(held.id);
      this.#changed.ring();
    }
  }

  /** Send the last reports, and wait a bounded time for their acknowledgements. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#changed.ring();
    const timer = setTimeout(() => this.#abort?.(), CLOSE_TIMEOUT_MS);
    await this.#running;
    clearTimeout(timer);
  }

  get #isClosing(): boolean {
    return this.#closing.signal.aborted;
  }

  #wake(): void {
    this.#changed.ring();
    if (this.#running === undefined && !this.#isClosing) {
      this.#running = this.#run().finally(() => {
        this.#running = undefined;
        if (this.#held.size > 0) {
          this.#wake(); // one was held while the last stream ended
        }
      });
    }
  }

  /** Hold one stream after the other, until no operation is held. */
  async #run(): Promise<void> {
    const backoff = new Backoff();
    let isLimited = false;
    while (this.#held.size > 0 && !this.#isClosing) {
      this.#wasAnswered = false;
      const openTime = clock();
      const error = await this.#exchange();
      isLimited = error instanceof LimitReached || (isLimited && isVague(error));
      const isSteady = clock() - openTime > STEADY_MS;
      if (isSteady || (this.#wasAnswered && !isLimited && isAway(error))) {
        backoff.reset();
      }
      if (this.#held.size > 0 && !this.#isClosing) {
        const pauseMs = backoff.pauseMs(error);
        this.#quietEndTime = isLimited ? clock() + pauseMs : Number.NEGATIVE_INFINITY;
        this.#enqueueAgain(!isLimited);
        await this.#pause(isLimited ? this.#limitedPauseMs(pauseMs) : pauseMs);
        this.#nextDueTime = Number.NEGATIVE_INFINITY; // time has passed without a look at the leases
      }
    }
  }

  /** Return the pause until a lease is to be renewed, if that comes before the retry time. */
  #limitedPauseMs(pauseMs: number): number {
    const dueTime = Math.min(...[...this.#held.values()].map((held) => held.dueTime));
    return Math.min(pauseMs, Math.max(dueTime - clock(), MIN_LIMITED_PAUSE_MS));
  }

  async #pause(ms: number, ended?: AbortSignal): Promise<void> {
    const end = clock() + ms;
    while (clock() < end && !this.#isClosing && !ended?.aborted) {
      this.#changed.clear();
      await this.#changed.wait(end - clock());
    }
  }

  /** Send again what the last stream may have lost, or everything. */
  #enqueueAgain(everything: boolean): void {
    for (const held of this.#held.values()) {
      if (everything || held.isUnanswered) {
        this.#unsent.set(held.id, held);
        held.loseAcknowledgements();
      }
    }
  }

  /** Hold one stream, from the first report to its end; return the reason of the end. */
  async #exchange(): Promise<MilepostError | undefined> {
    const ending = new AbortController();
    this.#abort = () => ending.abort();
    try {
      const requests = this.#requests(ending.signal);
      const options = { signal: ending.signal };
      for await (const response of this.#calls.workers.streamProgress(requests, options)) {
        this.#wasAnswered = true;
        this.#take(response);
      }
      return undefined;
    } catch (failure) {
      return rebuild(failure);
    } finally {
      ending.abort();
      this.#changed.ring(); // ends the requests, which may wait
    }
  }

  /** Yield the messages as they are to be sent, until the stream ends. */
  async *#requests(ended: AbortSignal): AsyncGenerator<StreamProgressRequest, void, undefined> {
    while (!ended.aborted) {
      this.#changed.clear();
      this.#enqueueDue(clock());
      const updates = this.#dueUpdates(clock());
      if (updates.length > 0) {
        yield create(StreamProgressRequestSchema, { updates });
        await this.#pause(PACE_MS, ended);
      } else if (this.#isClosing || (await this.#isIdle(ended))) {
        return;
      }
    }
  }

  /** Take the updates of the next message, the operation first whose lease runs out first. */
  #dueUpdates(now: number): ProgressUpdate[] {
    const isQuiet = now < this.#quietEndTime && !this.#isClosing;
    const ready = [...this.#unsent.values()]
      .filter((held) => this.#isReady(held, now, isQuiet))
      .sort((a, b) => a.leaseEndTime - b.leaseEndTime);
    const updates: ProgressUpdate[] = [];
    let bytes = 0;
    for (const held of ready) {
      bytes += held.maxBytes;
      if (updates.length > 0 && (bytes > MAX_MESSAGE_BYTES || updates.length === MAX_UPDATES)) {
        break;
      }
      if (!isQuiet || held.unstored === undefined) {
        this.#unsent.delete(held.id);
      }
      updates.push(held.take(now, isQuiet));
      this.#nextDueTime = Math.min(this.#nextDueTime, held.dueTime);
    }
    return updates;
  }

  /** Return true if there is something to send now, or note when there is. */
  #isReady(held: HeldOperation, now: number, isQuiet: boolean): boolean {
    const time = isQuiet ? Math.min(held.dueTime, this.#quietEndTime) : held.readyTime;
    const isReady = this.#isClosing || (isQuiet ? held.earlyTime <= now : time <= now);
    if (!isReady) {
      this.#nextDueTime = Math.min(this.#nextDueTime, time);
    }
    return isReady;
  }

  /** Wait for a report, or a lease to renew; return true if no operation is held for a while. */
  async #isIdle(ended: AbortSignal): Promise<boolean> {
    if (this.#held.size > 0) {
      await this.#changed.wait(this.#nextDueTime - clock());
      return false;
    }
    await this.#changed.wait(IDLE_MS);
    return this.#held.size === 0 && !ended.aborted;
  }

  /** Enqueue the operations whose leases are to be renewed, if there is one. */
  #enqueueDue(now: number): void {
    if (now < this.#nextDueTime) {
      return;
    }
    this.#nextDueTime = Number.POSITIVE_INFINITY;
    for (const held of this.#held.values()) {
      if (held.earlyTime <= now) {
        this.#unsent.set(held.id, held);
      } else {
        this.#nextDueTime = Math.min(this.#nextDueTime, held.dueTime);
      }
    }
  }

  /** Pass what the service says on to the operations that it is about. */
  #take({ item, acknowledgements }: StreamProgressResponse): void {
    for (const each of acknowledgements) {
      this.#acknowledge(each);
    }
    switch (item.case) {
      case "acknowledgement":
        this.#acknowledge(item.value);
        break;
      case "interruption":
        this.#interrupt(item.value);
        break;
      case "error":
        this.#refuse(item.value);
        break;
    }
  }

  #acknowledge({ operationId, attempt }: Acknowledgement): void {
    const held = this.#held.get(operationId);
    if (held !== undefined && (attempt === 0 || attempt === held.attempt)) {
      held.acknowledge();
      if (this.#unsent.has(held.id)) {
        this.#changed.ring(); // a newer report has waited for this
      }
    }
  }

  #interrupt(item: Interruption): void {
    const held = this.#held.get(item.operationId);
    if (held !== undefined && item.revision > BigInt(held.revision)) {
      interrupt(held, item);
    }
  }

  #refuse(item: UpdateError): void {
    const held = this.#held.get(item.operationId);
    if (held === undefined || isAboutAnotherAttempt(item, held)) {
      return;
    }
    const error = refusal(item);
    if (isTemporary(error) || error instanceof StreamFull) {
      held.noteRefusal();
      setTimeout(() => this.enqueue(held), held.backoff.pauseMs(error));
    } else {
      held.refuse(error);
    }
  }
}

/** Return true if the stream ended because the service cannot be reached. */
function isAway(error: MilepostError | undefined): boolean {
  return error instanceof Unavailable || (error !== undefined && isDisruption(error));
}

/** Return true if a write failed before the reason was known, which was the earlier one. */
function isVague(error: MilepostError | undefined): boolean {
  return error instanceof InternalError && error.reason === "";
}

function refusal(item: UpdateError): MilepostError {
  const kind = errorClass(item.reason, item.metadata);
  return new kind(item.message, { reason: item.reason, metadata: item.metadata });
}

/** Return true if the error is certainly the answer to an earlier attempt of the operation. */
function isAboutAnotherAttempt({ reason, metadata }: UpdateError, held: HeldOperation): boolean {
  const attempt = String(held.attempt);
  return reason === "STALE_ATTEMPT" && (metadata.expected ?? attempt) !== attempt;
}

/** Pass on the error that a later report of the same work would be refused with. */
function interrupt(held: HeldOperation, { kind }: Interruption): void {
  const facts = { operation_id: held.id };
  switch (kind) {
    case InterruptionKind.CANCEL_REQUESTED:
      held.requestCancel();
      break;
    case InterruptionKind.CANCELLED:
      held.refuse(
        new Cancelled(`operation ${held.id} was cancelled`, {
          reason: "ILLEGAL_TRANSITION",
          metadata: { ...facts, transition: "progress", status: "CANCELLED" },
        }),
      );
      break;
    case InterruptionKind.EXPIRED:
      held.refuse(
        new OperationExpired(`operation ${held.id} has expired`, {
          reason: "OPERATION_EXPIRED",
          metadata: facts,
        }),
      );
      break;
    case InterruptionKind.LEASE_LOST:
      held.refuse(staleAttempt(held.id));
      break;
    default: // of a newer service; what concerns this attempt will be refused
      break;
  }
}

function staleAttempt(operationId: string): StaleAttempt {
  return new StaleAttempt(`operation ${operationId} is no longer held by this worker`, {
    reason: "STALE_ATTEMPT",
    metadata: { operation_id: operationId },
  });
}
