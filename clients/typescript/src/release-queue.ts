/** Releases at the end of workers: at once, but not all at once, and only for a short time. */

import { clock } from "./backoff.js";
import { requestId as newRequestId } from "./calls.js";
import type { Milepost } from "./client.js";
import { untilFinal } from "./retry.js";

/** How long the end of a program may wait for its releases, all together. */
export const RELEASE_TIMEOUT_MS = 2_000;
/** Releases at once, so that the end of a large worker does not overload the service. */
const MAX_RELEASES = 100;

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
  async giveBack(operationId: string, attempt: number): Promise<void> {
    const end = clock() + RELEASE_TIMEOUT_MS;
    await this.#enter();
    try {
      const requestId = newRequestId(undefined);
      const release = () =>
        this.#milepost.release(operationId, {
          reason: "the worker has stopped",
          attempt,
          requestId,
          deadlineMs: Math.max(1, end - clock()),
        });
      await untilFinal(release, { timeoutMs: end - clock() });
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
