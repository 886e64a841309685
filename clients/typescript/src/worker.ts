/** A worker: claims operations of some functions, and runs the handler of each. */
import { Backoff, clock, sleep } from "./backoff.js";
import { Bell } from "./bell.js";
import type { Milepost } from "./client.js";
import { LimitReached, MilepostError, UndecodableAnswer } from "./errors.js";
import { Execution, type Handler } from "./execution.js";
import { CONSOLE, type Logger } from "./logger.js";
import { monitorLoop } from "./loop-monitor.js";
import type { Operation } from "./operation.js";
import { RELEASE_TIMEOUT_MS } from "./release-queue.js";
import { isTemporary } from "./retry.js";

const DEFAULT_LEASE_MS = 30_000;
const DEFAULT_GRACE_MS = 30_000;
const DEFAULT_CONCURRENCY = 10;
/** How long one claim waits for work. */
const CLAIM_TIMEOUT_MS = 8_000;
/** The operations that one progress stream carries. */
const MAX_CONCURRENCY = 1_000;
const MAX_PER_CLAIM = 100;
/** How long a handler whose work is over may still occupy its worker. */
const MAX_PATIENCE_MS = 5_000;
const CLOSED = "the client was closed while its worker ran";

/** How a worker works. */
export interface WorkerOptions {
  /** The maximum number of operations at once, 1 to 1,000; 10 by default. */
  readonly concurrency?: number | undefined;
  /** The name of this worker, shown to operators. */
  readonly name?: string | undefined;
  /** The time after which another worker gets an operation of a dead worker; 30 s by default. */
  readonly leaseMs?: number | undefined;
  /** How long handlers may go on after `stop`; 30 s by default. */
  readonly graceMs?: number | undefined;
  /** Where warnings go; to the console by default. */
  readonly log?: Logger | undefined;
}

/**
 * A worker that does the work of some functions until it is stopped.
 *
 * ```ts
 * const worker = new Worker(milepost, {
 *   "video.transcode": async (work) => {
 *     await work.progress(0.5, "halfway");
 *     return { frames: 1200 };
 *   },
 * });
 * await worker.run({ handleSignals: true });
 * ```
 *
 * What a handler returns completes its operation. What it throws fails the attempt, and the next
 * one follows while attempts are left; a `PermanentFailure` is final, a `RetryLater` names the
 * delay. Leases are renewed while the handler runs, and until the service has accepted the end of
 * the operation.
 *
 * A handler must not block the event loop, which also renews the leases; a loop that was blocked
 * for most of a lease is reported as a warning.
 */
export class Worker {
  readonly #milepost: Milepost;
  readonly #handlers: ReadonlyMap<string, Handler>;
  readonly #concurrency: number;
  readonly #name: string | undefined;
  readonly #leaseMs: number;
  readonly #graceMs: number;
  readonly #log: Logger;
  readonly #executions = new Set<Execution>();
  readonly #room = new Bell();
  readonly #stopping = new AbortController();
  #isRunning = false;
  #isClientClosing = false;

  /** @throws RangeError if there are no functions, or the concurrency is out of range. */
  constructor(
    milepost: Milepost,
    functions: Readonly<Record<string, Handler>>,
    options: WorkerOptions = {},
  ) {
    const { concurrency = DEFAULT_CONCURRENCY } = options;
    this.#handlers = new Map(Object.entries(functions));
    if (this.#handlers.size === 0) {
      throw new RangeError("a worker needs functions");
    }
    if (!(Number.isInteger(concurrency) && concurrency >= 1 && concurrency <= MAX_CONCURRENCY)) {
      throw new RangeError(`concurrency must lie between 1 and ${MAX_CONCURRENCY}`);
    }
    this.#milepost = milepost;
    this.#concurrency = concurrency;
    this.#name = options.name;
    this.#leaseMs = options.leaseMs ?? DEFAULT_LEASE_MS;
    this.#graceMs = options.graceMs ?? DEFAULT_GRACE_MS;
    this.#log = options.log ?? CONSOLE;
  }

  /** Claim no more, wait for the running handlers within the grace, and let `run` return. */
  stop(): void {
    this.#stopping.abort();
  }

  /**
   * Work until `stop` is called.
   *
   * An operation whose handler has not ended after the grace is released: another worker gets it
   * at once, and it is no failed attempt. If the client is closed, all operations are released at
   * once. Releases are best effort: without one, another worker gets the operation when its lease
   * runs out.
   *
   * @param options `handleSignals`: call `stop` at the first SIGTERM or SIGINT; the second one ends
   *   the process as usual. For programs that only run a worker. `signal`: its abort calls `stop`.
   * @throws MilepostError if claims are refused for good: the credential is not valid, or not
   *   granted one of the functions.
   */
  async run(options: { handleSignals?: boolean; signal?: AbortSignal } = {}): Promise<void> {
    if (this.#isRunning) {
      throw new Error("the worker runs already");
    }
    this.#isRunning = true;
    const detach = this.#stopWith(options);
    const endMonitor = monitorLoop(this.#leaseMs, this.#log);
    const leave = () => this.#leaveClient();
    this.#milepost._beforeClose.add(leave);
    try {
      await this.#claimUntilStopped();
      if (this.#isClientClosing) {
        throw new Error(CLOSED);
      }
    } finally {
      await this.#drain(this.#isClientClosing ? 0 : this.#graceMs);
      this.#milepost._beforeClose.delete(leave);
      endMonitor();
      detach();
      this.#isRunning = false;
    }
  }

  /** Stop at signals of the process or of the caller; return the end of that. */
  #stopWith(options: { handleSignals?: boolean; signal?: AbortSignal }): () => void {
    const stop = () => this.stop();
    if (options.signal?.aborted === true) {
      stop();
    }
    options.signal?.addEventListener("abort", stop, { once: true });
    if (options.handleSignals === true) {
      process.once("SIGTERM", stop).once("SIGINT", stop);
    }
    return () => {
      options.signal?.removeEventListener("abort", stop);
      process.off("SIGTERM", stop).off("SIGINT", stop);
    };
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  async #claimUntilStopped(): Promise<void> {
    const backoff = new Backoff();
    const ring = () => this.#room.ring();
    this.#stopping.signal.addEventListener("abort", ring, { once: true });
    while (!this.#isStopping) {
      const free = this.#concurrency - this.#executions.size;
      if (free <= 0) {
        this.#room.clear();
        await this.#room.wait();
        continue;
      }
      try {
        const operations = await this.#claim(Math.min(free, MAX_PER_CLAIM));
        backoff.reset();
        for (const operation of operations) {
          this.#begin(operation);
        }
      } catch (error) {
        if (this.#isStopping) {
          return;
        }
        if (!(error instanceof MilepostError && isSurvived(error))) {
          throw error;
        }
        this.#log.warn(`no work was claimed: ${error.message}`);
        await sleep(backoff.pauseMs(error), this.#stopping.signal).catch(() => undefined);
      }
    }
  }

  #claim(maxOperations: number): Promise<Operation[]> {
    return this.#milepost.claim(this.#handlers.keys(), {
      maxOperations,
      leaseMs: this.#leaseMs,
      worker: this.#name,
      timeoutMs: CLAIM_TIMEOUT_MS,
      signal: this.#stopping.signal,
    });
  }

  #begin(operation: Operation): void {
    const handler = this.#handlers.get(operation.function) ?? unknownFunction;
    const execution = new Execution(this.#milepost, operation, handler, {
      patienceMs: Math.min(this.#graceMs, MAX_PATIENCE_MS),
      log: this.#log,
      onEnd: (ended) => {
        this.#executions.delete(ended);
        this.#room.ring();
      },
    });
    this.#executions.add(execution);
  }

  /** Wait for the running handlers within the grace, and release the other operations. */
  async #drain(graceMs: number): Promise<void> {
    await this.#untilDone(graceMs);
    await this.#leave();
  }

  /** Release all operations, because the client is closed. */
  async #leaveClient(): Promise<void> {
    this.#isClientClosing = true;
    this.stop();
    await this.#leave();
  }

  /** Tell the handlers to stop, and release their operations; those that go on, after a while. */
  async #leave(): Promise<void> {
    for (const execution of this.#executions) {
      execution.leave();
    }
    await this.#untilDone(RELEASE_TIMEOUT_MS / 2);
    const remaining = [...this.#executions];
    for (const execution of remaining) {
      this.#log.warn(`the handler of ${execution.id} does not end though its signal is aborted`);
    }
    // Requested cancels are acknowledged first.
    remaining.sort((a, b) => Number(b.isCancelRequested) - Number(a.isCancelRequested));
    await Promise.all(remaining.map((execution) => execution.giveBack()));
  }

  /** Wait until no handler runs, or the time has passed. */
  async #untilDone(ms: number): Promise<void> {
    const end = clock() + ms;
    while (this.#executions.size > 0 && clock() < end) {
      this.#room.clear();
      await this.#room.wait(end - clock());
    }
  }
}

/** Return true if the worker claims again after the refusal. */
function isSurvived(error: MilepostError): boolean {
  const isLimit = error instanceof LimitReached || error instanceof UndecodableAnswer;
  return isLimit || isTemporary(error);
}

/** The handler of an operation that was not asked for. */
function unknownFunction(): never {
  throw new Error("this worker has no handler for the function");
}
