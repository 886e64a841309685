/** The execution of a handler for one claimed operation: whatever happens ends it alone. */
import type { CallOptions } from "./calls.js";
import { requestId } from "./calls.js";
import type { Milepost } from "./client.js";
import { toDuration } from "./convert.js";
import { isUnexplained } from "./disruption.js";
import { CancellationNotRequested, InvalidRequest, isOver, MilepostError } from "./errors.js";
import {
  CancelRequested,
  describe,
  isCausedBy,
  PermanentFailure,
  RetryLater,
  refused,
  text,
  WorkerStopped,
} from "./failure.js";
import { NotJson, toAny } from "./json.js";
import type { Logger } from "./logger.js";
import { type Operation, type OperationError, sizeOf, toErrors } from "./operation.js";
import type { Leftover } from "./release-queue.js";
import { untilFinal } from "./retry.js";
import { inTrace } from "./tracing.js";
import { Work } from "./work.js";

/**
 * Does the work of one operation. What it returns completes the operation: JSON, null included, a
 * `google.protobuf.Any`, or undefined for no result. What it throws fails the attempt.
 */
export type Handler = (work: Work) => unknown;

/** Size above which a limit that is reached without a reason is that of the size of a message. */
const LARGE_BYTES = 1 << 20;

interface Retry {
  readonly retryable: boolean;
  readonly retryDelayMs?: number;
}

/** The error of a failed attempt, and what becomes of the operation. */
interface Ending {
  readonly error: OperationError;
  readonly retry: Retry;
}

type Outcome = { readonly value: unknown } | { readonly problem: unknown };

/** One operation in the hands of a worker, until its handler has ended or is given up. */
export class Execution {
  /** Settled when the handler has ended, and the operation with it. Never rejects. */
  readonly done: Promise<void>;
  readonly #milepost: Milepost;
  readonly #operation: Operation;
  readonly #log: Logger;
  readonly #work: Work;
  readonly #onEnd: () => void;
  readonly #patienceMs: number;
  /** Aborted when the end of the operation is not to be tried any more. */
  readonly #leaving = new AbortController();
  #isDone = false;
  #givingBack: Promise<void> | undefined;

  constructor(
    milepost: Milepost,
    operation: Operation,
    handler: Handler,
    options: { patienceMs: number; log: Logger; onEnd: (execution: Execution) => void },
  ) {
    this.#milepost = milepost;
    this.#operation = operation;
    this.#log = options.log;
    this.#patienceMs = options.patienceMs;
    this.#onEnd = () => options.onEnd(this);
    this.#work = new Work(milepost, operation, (reason) => this.#giveUpLater(reason));
    this.done = this.#run(handler);
  }

  /** The id of the operation. */
  get id(): string {
    return this.#operation.id;
  }

  /** True once the handler has ended, and the operation with it. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** Tell the handler to stop; the operation is given back when it has ended. */
  leave(): void {
    this.#leaving.abort(new WorkerStopped("the worker stops"));
    this.#work._stop(new WorkerStopped("the worker stops"));
  }

  /** Give the operation back, once, even if its handler goes on. */
  giveBack(): Promise<void> {
    this.#givingBack ??= this.#release();
    return this.#givingBack;
  }

  async #release(): Promise<void> {
    try {
      await this.#milepost._releases.giveBack(this.#operation, this.#leftover());
    } catch (problem) {
      // The program ends, and the lease with it.
      this.#log.info(`${this.id} was not released: ${problem}`);
    } finally {
      this.#detach();
    }
  }

  /** Return what is to be written before the release: an acknowledgement, or a checkpoint. */
  #leftover(): Leftover {
    const held = this.#work._held;
    if (this.isCancelRequested) {
      return { isCancelRequested: true };
    }
    return held.hasUnstoredCheckpoint ? { report: held.unstored, send: () => held.send() } : {};
  }

  /** True if the owner asks to cancel the operation. */
  get isCancelRequested(): boolean {
    return this.#work.cancelRequested.aborted;
  }

  async #run(handler: Handler): Promise<void> {
    try {
      const outcome = await inTrace(this.#operation.traceparent, () => call(handler, this.#work));
      this.#work._end();
      await this.#end(outcome);
    } catch (problem) {
      if (this.#leaving.signal.aborted) {
        await this.giveBack();
      } else if (isOver(problem)) {
        this.#log.info(`${this.id} was taken away: ${problem.message}`);
      } else {
        this.#log.error(`${this.id} is left unfinished`, problem);
      }
    } finally {
      this.#detach();
      this.#isDone = true;
      this.#onEnd();
    }
  }

  /** End the operation as the handler ended, unless its work was over before. */
  async #end(outcome: Outcome): Promise<void> {
    if (this.#leaving.signal.aborted) {
      await this.giveBack();
    } else if (this.#work.signal.aborted) {
      this.#log.info(`${this.id} was taken away: ${this.#work.signal.reason}`);
    } else if ("value" in outcome) {
      await this.#complete(outcome.value);
    } else {
      await this.#fail(outcome.problem);
    }
  }

  async #complete(value: unknown): Promise<void> {
    let problem: unknown;
    try {
      const result = packed(value);
      await this.#storeLastReport();
      const size = result?.value.length ?? 0;
      await this.#untilFinal(
        (options) => this.#milepost.complete(this.id, result, options),
        size > LARGE_BYTES,
      );
      return;
    } catch (refusal) {
      if (!isUnstorable(refusal)) {
        throw refusal;
      }
      problem = refusal;
    }
    const message = text("the result cannot be stored: ", problem);
    await this.#fail(new PermanentFailure(message, { code: "UnstorableResult" }));
  }

  async #fail(problem: unknown): Promise<void> {
    let { error, retry } = endingOf(problem);
    if (retry.retryable && this.#work._held.hasUnstoredCheckpoint) {
      await this.#work._held.send(); // so that no earlier one on the stream can replace it
    }
    await this.#storeLastReport();
    if (this.#isAcknowledgement(problem)) {
      const refusal = await this.#acknowledge();
      if (refusal === undefined) {
        return;
      }
      error = describe(refusal);
    }
    this.#logFailure(problem);
    try {
      await this.#failWith(error, retry);
    } catch (refusal) {
      if (!isUnstorable(refusal)) {
        throw refusal;
      }
      await this.#failWith(refused(refusal), { retryable: false });
    }
  }

  #logFailure(problem: unknown): void {
    try {
      this.#log.error(`${this.id} failed`, problem);
    } catch {
      this.#log.error(`${this.id} failed`); // the code of the problem fails too
    }
  }

  #isAcknowledgement(problem: unknown): boolean {
    const { reason } = this.#work.cancelRequested;
    try {
      return problem instanceof CancelRequested || isCausedBy(problem, reason);
    } catch {
      return false; // the code of the problem fails too
    }
  }

  /** Acknowledge the cancel; return the refusal if none was requested. */
  async #acknowledge(): Promise<CancellationNotRequested | undefined> {
    try {
      await this.#untilFinal((options) => this.#milepost.acknowledgeCancellation(this.id, options));
      return undefined;
    } catch (refusal) {
      if (refusal instanceof CancellationNotRequested) {
        return refusal;
      }
      throw refusal;
    }
  }

  async #failWith(error: OperationError, retry: Retry): Promise<void> {
    const size = toErrors([error]).reduce((sum, each) => sum + sizeOf(each), 0);
    await this.#untilFinal(
      (options) => this.#milepost.fail(this.id, [error], { ...retry, ...options }),
      size > LARGE_BYTES,
    );
  }

  /** Store the last report by a call if the stream has not: both may use other replicas. */
  async #storeLastReport(): Promise<void> {
    const held = this.#work._held;
    held.onlyRenew();
    const last = held.unstored;
    if (last === undefined) {
      return;
    }
    try {
      await this.#untilFinal((options) => this.#milepost.updateProgress(this.id, last, options));
      held.settle();
    } catch (refusal) {
      if (isOver(refusal) || !(refusal instanceof MilepostError)) {
        throw refusal;
      }
      // The report is lost, the end is not.
    }
  }

  /** Send a write with one requestId until the service accepts it, or refuses it for good. */
  async #untilFinal<Answer>(
    write: (options: CallOptions & { attempt: number; requestId: string }) => Promise<Answer>,
    isLarge = false,
  ): Promise<Answer> {
    const signal = this.#leaving.signal;
    const { attempt } = this.#operation;
    const options = { attempt, requestId: requestId(undefined), signal };
    return untilFinal(() => write(options), {
      timeoutMs: Number.POSITIVE_INFINITY,
      isLarge,
      signal,
    });
  }

  #detach(): void {
    this.#work._held.close();
  }

  /** Go on without the handler, if it has not ended after its work is over. */
  #giveUpLater(reason: Error): void {
    this.#log.info(`${this.id} is over: ${reason.message}`);
    const giveUp = () => {
      if (!this.#isDone) {
        this.#log.warn(`${this.id} is over, and its handler goes on all the same`);
        this.#onEnd();
      }
    };
    setTimeout(giveUp, this.#patienceMs).unref();
  }
}

/** Call the handler, and return its outcome. Nothing that it does is thrown. */
async function call(handler: Handler, work: Work): Promise<Outcome> {
  try {
    return { value: await handler(work) };
  } catch (problem) {
    return { problem };
  }
}

/** Return the packed result. `toJSON` and getters are code of the user and may throw anything. */
function packed(value: unknown) {
  try {
    return toAny(value);
  } catch (problem) {
    if (problem instanceof NotJson) {
      throw problem;
    }
    throw new NotJson(text("the result cannot be read: ", problem));
  }
}

/**
 * Return true if another content may be accepted.
 *
 * A message that is too large for gRPC, or for a proxy, is refused without a reason.
 */
function isUnstorable(problem: unknown): boolean {
  return (
    problem instanceof NotJson ||
    problem instanceof InvalidRequest ||
    (problem instanceof MilepostError && isUnexplained(problem))
  );
}

/** Return how an attempt ends. Whatever a handler throws may have code of its own, which fails. */
function endingOf(problem: unknown): Ending {
  try {
    const error = describe(problem);
    const retry = retryOf(problem);
    toErrors([error]); // reads the details
    toDuration(retry.retryDelayMs, "delayMs");
    return { error, retry };
  } catch (refusal) {
    return { error: refused(refusal), retry: { retryable: false } };
  }
}

/** What a handler throws is tried again, unless it says otherwise. */
function retryOf(problem: unknown): Retry {
  if (problem instanceof RetryLater) {
    return { retryable: true, retryDelayMs: problem.delayMs };
  }
  return { retryable: !(problem instanceof PermanentFailure) };
}
