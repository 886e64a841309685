/** Releases at the end of workers: at once, but not all at once, and only for a short time. */

import { clock } from "./backoff.js";
import { requestId } from "./calls.js";
import type { Milepost, ProgressReport } from "./client.js";
import type { Operation } from "./operation.js";
import { untilFinal } from "./retry.js";

/** How long the end of a program may wait for its releases, all together. */
export const RELEASE_TIMEOUT_MS = 2_000;
/** Releases at once, so that the end of a large worker does not overload the service. */
const MAX_RELEASES = 100;

/** What is written before an operation is released. */
export interface Leftover {
  /** Acknowledge the cancel instead. */
  readonly isCancelRequested?: boolean;
  /** The report that may not be stored yet, and the wait for its place on the stream. */
  readonly report?: ProgressReport | undefined;
  readonly send?: () => Promise<void>;
}

/** The releases of one client. */
export class ReleaseQueue {
  readonly #milepost: Milepost;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(milepost: Milepost) {
    this.#milepost = milepost;
  }

  /**
   * Release the attempt at the end of a worker, best effort.
   *
   * @throws MilepostError if it was refused, or not answered in time.
   */
  async giveBack({ id, attempt }: Operation, leftover: Leftover): Promise<void> {
    const end = clock() + RELEASE_TIMEOUT_MS;
    await this.#enter();
    try {
      await leftover.send?.();
      const common = { attempt, requestId: requestId(undefined) };
      const options = () => ({ ...common, deadlineMs: Math.max(1, end - clock()) });
      if (leftover.report !== undefined) {
        const stored = { attempt, deadlineMs: Math.max(1, (end - clock()) / 2) };
        await this.#milepost.updateProgress(id, leftover.report, stored).catch(() => undefined);
      }
      const write = () =>
        leftover.isCancelRequested === true
          ? this.#milepost.acknowledgeCancellation(id, options())
          : this.#milepost.release(id, { ...options(), reason: "the worker has stopped" });
      await untilFinal(write, { timeoutMs: end - clock() });
    } finally {
      this.#leave();
    }
  }

  async #enter(): Promise<void> {
    if (this.#running >= MAX_RELEASES) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve)); // takes the slot over
    } else {
      this.#running += 1;
    }
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#running -= 1;
    } else {
      next();
    }
  }
}
