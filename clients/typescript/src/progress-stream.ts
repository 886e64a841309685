/**
 * The progress stream that all work of a client shares: it reconnects, and renews all leases.
 *
 * Reports leave it in the order of their urgency: first the operation whose lease runs out first.
 * After a disconnection the newest report of every operation is sent again, because the service
 * notifies a stream of a cancel only if the operation was reported on it. After a rate limit the
 * reports wait for a while, and only leases are renewed, which the service does not limit.
 */
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
  type Interruption,
  InterruptionKind,
  type StreamProgressRequest,
  type StreamProgressResponse,
  type UpdateError,
} from "./gen/milepost/v1/worker_service_pb.js";
import { HeldOperation, type Holder } from "./held-operation.js";
import type { Operation } from "./operation.js";
import { errorClass, rebuild } from "./refusal.js";
import { isTemporary, MAX_PAUSE_MS } from "./retry.js";

/** Life of a stream after which the pauses begin anew. */
const STEADY_MS = 10_000;
/** Pause after a rate limit: leases are renewed meanwhile. */
const MAX_LIMITED_PAUSE_MS = 250;
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
    const backoff = new Backoff(MAX_PAUSE_MS);
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
        await this.#pause(isLimited ? Math.min(pauseMs, MAX_LIMITED_PAUSE_MS) : pauseMs);
        this.#enqueueAgain(!isLimited);
      }
    }
  }

  async #pause(ms: number): Promise<void> {
    const end = clock() + ms;
    while (clock() < end && !this.#isClosing) {
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
    this.#nextDueTime = Number.NEGATIVE_INFINITY; // time has passed without a look at the leases
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

  /** Yield the reports as they are to be sent, until the stream ends. */
  async *#requests(ended: AbortSignal): AsyncGenerator<StreamProgressRequest, void, undefined> {
    while (!ended.aborted) {
      this.#changed.clear();
      this.#enqueueDue(clock());
      for (const held of this.#urgent()) {
        if (ended.aborted) {
          return;
        }
        if (this.#unsent.get(held.id) === held) {
          this.#unsent.delete(held.id);
          const request = held.take(clock(), clock() < this.#quietEndTime);
          this.#nextDueTime = Math.min(this.#nextDueTime, held.dueTime);
          yield request;
        }
      }
      const isDone = this.#isClosing && this.#unsent.size === 0;
      if (isDone || (this.#urgent().length === 0 && (await this.#isIdle(ended)))) {
        return;
      }
    }
  }

  /** Return what is to be sent now, the operation first whose lease runs out first. */
  #urgent(): HeldOperation[] {
    const now = clock();
    const isQuiet = now < this.#quietEndTime && !this.#isClosing;
    return [...this.#unsent.values()]
      .filter((held) => !isQuiet || held.dueTime <= now)
      .sort((a, b) => a.leaseEndTime - b.leaseEndTime);
  }

  /** Wait for a report, or a lease to renew; return true if no operation is held for a while. */
  async #isIdle(ended: AbortSignal): Promise<boolean> {
    if (this.#held.size > 0) {
      const now = clock();
      const quietEndTime = this.#quietEndTime > now ? this.#quietEndTime : this.#nextDueTime;
      await this.#changed.wait(Math.min(this.#nextDueTime, quietEndTime) - now);
      return false;
    }
    await this.#changed.wait(IDLE_MS);
    return this.#held.size === 0 && !ended.aborted;
  }

  /** Enqueue the operations whose leases are to be renewed. */
  #enqueueDue(now: number): void {
    if (now < this.#nextDueTime) {
      return;
    }
    this.#nextDueTime = Number.POSITIVE_INFINITY;
    for (const held of this.#held.values()) {
      if (held.dueTime <= now) {
        this.#unsent.set(held.id, held);
      } else {
        this.#nextDueTime = Math.min(this.#nextDueTime, held.dueTime);
      }
    }
  }

  /** Pass an item of the service on to the operation that it is about. */
  #take({ item }: StreamProgressResponse): void {
    const held = item.case === undefined ? undefined : this.#held.get(item.value.operationId);
    if (held === undefined || isAboutAnotherAttempt(item, held)) {
      return;
    }
    switch (item.case) {
      case "acknowledgement":
        held.acknowledge();
        break;
      case "interruption":
        interrupt(held, item.value);
        break;
      case "error":
        this.#refuse(held, refusal(item.value));
        break;
    }
  }

  #refuse(held: HeldOperation, error: MilepostError): void {
    if (isTemporary(error) || error instanceof StreamFull) {
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

/** Return true if the item is certainly the answer to an earlier attempt of the operation. */
function isAboutAnotherAttempt(item: StreamProgressResponse["item"], held: HeldOperation): boolean {
  switch (item.case) {
    case "acknowledgement":
      return item.value.attempt !== 0 && item.value.attempt !== held.attempt;
    case "interruption":
      return item.value.revision <= BigInt(held.revision);
    case "error": {
      const { reason, metadata } = item.value;
      const attempt = String(held.attempt);
      return reason === "STALE_ATTEMPT" && (metadata.expected ?? attempt) !== attempt;
    }
    default:
      return true;
  }
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
