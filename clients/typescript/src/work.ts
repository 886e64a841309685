/** The work on one operation, as a handler sees it. */
import type { Milepost } from "./client.js";
import { MilepostError } from "./errors.js";
import { CancelRequested } from "./failure.js";
import type { HeldOperation } from "./held-operation.js";
import type { Operation } from "./operation.js";

/** The work on one operation, from its claim until the handler has ended or must stop. */
export class Work {
  readonly #operation: Operation;
  readonly #held: HeldOperation;
  readonly #stop = new AbortController();
  readonly #cancel = new AbortController();
  #isEnded = false;

  /** @internal Made by the worker. */
  constructor(milepost: Milepost, operation: Operation, onOver: (reason: MilepostError) => void) {
    this.#operation = operation;
    this.#held = milepost._progressStream.hold(operation, {
      onOver: (reason) => {
        this._stop(reason);
        onOver(reason);
      },
      onCancelRequested: () => this.#requestCancel(),
    });
    if (operation.cancelRequestTime !== undefined) {
      this.#requestCancel();
    }
  }

  /** The operation, as it was claimed. */
  get operation(): Operation {
    return this.#operation;
  }

  /** The checkpoint of an earlier attempt; undefined if none was saved. */
  get resumedFrom(): unknown {
    return this.#operation.checkpoint;
  }

  /**
   * Aborted when the handler must stop. Its `reason` is a `Cancelled`, an `OperationExpired`, a
   * `StaleAttempt` (the lease is lost, or another worker has the operation), another refusal of the
   * service, or a `WorkerStopped`. Nothing that the handler returns or throws then is stored.
   */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /**
   * Aborted when the owner asks to cancel the operation, with a grace. The handler may finish, or
   * clean up and throw the `reason` of this signal, such as by `throwIfAborted()`: that ends the
   * operation as cancelled. At the end of the grace `signal` is aborted.
   */
  get cancelRequested(): AbortSignal {
    return this.#cancel.signal;
  }

  /**
   * Report the progress, as soon as possible, without an answer. Without arguments, only renew the
   * lease. Of reports that were not sent yet, the newest is kept.
   *
   * @param progress The completed share of the work, 0.0 to 1.0.
   * @param message The current step, as a text.
   * @throws the reason of `signal` if the handler must stop.
   * @throws ProgressDecrease or InvalidRequest if an earlier report was refused.
   * @throws NotJson if the message holds a lone surrogate.
   */
  async progress(progress?: number, message?: string): Promise<void> {
    await this.#report({ progress, message });
  }

  /**
   * Save the state of the work for the next attempt, which finds it in `resumedFrom`: JSON, or a
   * `google.protobuf.Any`, of at most 64 KiB. It travels with the progress. Throws what `progress`
   * throws, and a RangeError if the state is too large.
   */
  async checkpoint(state: unknown, progress?: number, message?: string): Promise<void> {
    await this.#report({ checkpoint: state, progress, message });
  }

  /**
   * Return when everything that was reported so far is stored, such as the last checkpoint.
   *
   * @throws MilepostError if a report was refused, or the handler must stop.
   */
  async flush(): Promise<void> {
    this.#stop.signal.throwIfAborted();
    await this.#held.flush();
  }

  async #report(report: Parameters<HeldOperation["report"]>[0]): Promise<void> {
    this.#stop.signal.throwIfAborted();
    if (this.#isEnded) {
      throw new MilepostError(`the work on ${this.#operation.id} is over: nothing can be reported`);
    }
    this.#held.report(report);
    await new Promise(setImmediate); // lets the stream run, however busy the handler is
  }

  /** @internal The operation on the progress stream. */
  get _held(): HeldOperation {
    return this.#held;
  }

  /** @internal Refuse further reports. */
  _end(): void {
    this.#isEnded = true;
  }

  /** @internal Tell the handler to stop. */
  _stop(reason: Error): void {
    this.#stop.abort(reason);
  }

  #requestCancel(): void {
    this.#cancel.abort(new CancelRequested(`${this.#operation.id} is to be cancelled`));
  }
}
