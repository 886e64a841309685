/** The client: the calls of callers, of receivers of webhooks and of workers in one class. */
import { preconditions } from "./callers.js";
import type { CallOptions, WriteOptions } from "./calls.js";
import { toDuration } from "./convert.js";
import { toAny } from "./json.js";
import { fromOperation, type Operation, type OperationError, toErrors } from "./operation.js";
import { ProgressStream } from "./progress-stream.js";
import { Receivers } from "./receivers.js";
import { ReleaseQueue } from "./release-queue.js";

/** What a write of a worker takes. */
export interface WorkOptions extends WriteOptions {
  /** Write only if this is the current attempt. */
  readonly attempt?: number | undefined;
}

/** What to claim. */
export interface ClaimOptions extends CallOptions {
  /** The maximum number of operations, 1 to 100; 1 by default. */
  readonly maxOperations?: number | undefined;
  /** The time for which each is held until progress renews it; 30 s by default. */
  readonly leaseMs?: number | undefined;
  /** The name of this worker, shown to operators. */
  readonly worker?: string | undefined;
  /** The time to wait for work; by default none. */
  readonly timeoutMs?: number | undefined;
}

/** How to start an operation by its id. */
export interface StartOptions extends WriteOptions {
  /** The name of this worker, shown to operators. */
  readonly worker?: string | undefined;
  /** The progress made already. */
  readonly progress?: number | undefined;
}

/** A report of progress. Absent fields keep their value. */
export interface ProgressReport {
  /** The completed share of the work, 0.0 to 1.0. */
  readonly progress?: number | undefined;
  /** The current step, as a text. */
  readonly message?: string | undefined;
  /** The state of the work for the next attempt: JSON, or a `google.protobuf.Any`. */
  readonly checkpoint?: unknown;
}

/** How to fail. */
export interface FailOptions extends WorkOptions {
  /** True if another attempt may succeed. */
  readonly retryable?: boolean | undefined;
  /** The time until the next attempt, instead of the pause of the retry policy. */
  readonly retryDelayMs?: number | undefined;
}

/** How to give an operation back. */
export interface ReleaseOptions extends WorkOptions {
  /** The time until it can be claimed again; by default none. */
  readonly delayMs?: number | undefined;
  /** The reason, as a text. */
  readonly reason?: string | undefined;
}

/**
 * A client of the service at one address.
 *
 * ```ts
 * const milepost = new Milepost({ address: "127.0.0.1:7450", apiKey });
 * const operation = await milepost.create("video.transcode", { metadata: { source: "in.mov" } });
 * console.log(await milepost.result(operation.id));
 * ```
 *
 * It needs no opening. A program has one client: it is costly to connect, and cheap to call.
 *
 * The calls of a worker stand here one by one; a `Worker` makes all of them. `attempt` and
 * `expectedRevision` make a write conditional: it is refused with `StaleAttempt` or
 * `RevisionMismatch` unless the operation still has them. Every write may throw
 * `OperationNotFound`, `IllegalTransition`, and `Cancelled` if the operation was cancelled.
 */
export class Milepost extends Receivers {
  #stream: ProgressStream | undefined;
  /** @internal What running workers do before the connection closes. */
  readonly _beforeClose = new Set<() => Promise<void>>();
  /** @internal Releases at the end of workers. */
  readonly _releases = new ReleaseQueue(this);

  /** @internal The stream that all work of this client shares. */
  get _progressStream(): ProgressStream {
    this.#stream ??= new ProgressStream(this._calls);
    return this.#stream;
  }

  /**
   * Release the operations of running workers, store their last reports, and close the connection.
   *
   * Calls in flight fail. A closed client stays closed. A program that makes no more calls need not
   * close its client to end.
   */
  override async close(): Promise<void> {
    await Promise.allSettled([...this._beforeClose].map((release) => release()));
    await this.#stream?.close();
    await super.close();
  }

  /**
   * Claim pending operations of these functions, each held until its lease runs out.
   *
   * @throws PermissionDenied if the caller is not granted one of the functions.
   */
  async claim(functions: Iterable<string>, options: ClaimOptions = {}): Promise<Operation[]> {
    const { timeoutMs = 0 } = options;
    const request = {
      functions: [...functions],
      maxOperations: options.maxOperations ?? 1,
      lease: toDuration(options.leaseMs, "leaseMs"),
      worker: options.worker,
      timeout: toDuration(timeoutMs, "timeoutMs"),
    };
    const answer = await this._calls.send(this._calls.workers.claimOperations, request, {
      ...options,
      waitingMs: timeoutMs,
    });
    return answer.operations.map((operation) => fromOperation(operation));
  }

  /** Start the pending operation. The answer holds the `attempt` of this worker. */
  async start(operationId: string, options: StartOptions = {}): Promise<Operation> {
    const { worker, progress } = options;
    const request = { operationId, worker, progress, ...preconditions(options) };
    const answer = await this._calls.send(this._calls.workers.startOperation, request, options);
    return fromOperation(answer.operation, answer);
  }

  /**
   * Report progress. It is stored when this returns, and a lease is renewed.
   *
   * @throws ProgressDecrease if an earlier report named more progress.
   */
  async updateProgress(
    operationId: string,
    report: ProgressReport = {},
    options: WorkOptions = {},
  ): Promise<Operation> {
    const request = {
      operationId,
      progress: report.progress,
      message: report.message,
      checkpoint: toAny(report.checkpoint),
      attempt: options.attempt,
      ...preconditions(options),
    };
    const answer = await this._calls.send(this._calls.workers.updateProgress, request, options);
    return fromOperation(answer.operation, answer);
  }

  /**
   * Complete the operation with a result: JSON, null included, or a `google.protobuf.Any`;
   * undefined is no result.
   *
   * @throws NotJson if the result is neither.
   * @throws InvalidRequest if the result is too large.
   */
  async complete(
    operationId: string,
    result?: unknown,
    options: WorkOptions = {},
  ): Promise<Operation> {
    const { attempt } = options;
    const request = { operationId, result: toAny(result), attempt, ...preconditions(options) };
    const answer = await this._calls.send(this._calls.workers.completeOperation, request, options);
    return fromOperation(answer.operation, answer);
  }

  /** Fail the operation, or only its attempt, for these reasons. */
  async fail(
    operationId: string,
    errors: Iterable<OperationError>,
    options: FailOptions = {},
  ): Promise<Operation> {
    const request = {
      operationId,
      errors: toErrors(errors),
      retryable: options.retryable ?? false,
      retryDelay: toDuration(options.retryDelayMs, "retryDelayMs"),
      attempt: options.attempt,
      ...preconditions(options),
    };
    const answer = await this._calls.send(this._calls.workers.failOperation, request, options);
    return fromOperation(answer.operation, answer);
  }

  /** Give the operation back for another attempt. It does not count as a failed one. */
  async release(operationId: string, options: ReleaseOptions = {}): Promise<Operation> {
    const request = {
      operationId,
      delay: toDuration(options.delayMs, "delayMs"),
      reason: options.reason,
      attempt: options.attempt,
      ...preconditions(options),
    };
    const answer = await this._calls.send(this._calls.workers.releaseOperation, request, options);
    return fromOperation(answer.operation, answer);
  }

  /**
   * End an operation whose cancel was requested: its worker has stopped.
   *
   * @throws CancellationNotRequested if no cancel was requested.
   */
  async acknowledgeCancellation(
    operationId: string,
    options: WorkOptions = {},
  ): Promise<Operation> {
    const request = { operationId, attempt: options.attempt, ...preconditions(options) };
    const answer = await this._calls.send(
      this._calls.workers.acknowledgeCancellation,
      request,
      options,
    );
    return fromOperation(answer.operation, answer);
  }

  override toString(): string {
    return `Milepost(${JSON.stringify(this.address)})`;
  }
}
