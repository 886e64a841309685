/** Pauses between tries, and a sleep that a signal ends. */
import type { MilepostError } from "./errors.js";

const FIRST_PAUSE_MS = 50;
const MAX_PAUSE_MS = 2_000;

/**
 * Pauses that grow from try to try: each is about twice the one before, up to a maximum.
 *
 * Each is shortened at random by up to a half, so that clients that were disturbed together do not
 * come back together.
 */
export class Backoff {
  readonly #maxMs: number;
  #nextMs = FIRST_PAUSE_MS;

  constructor(maxMs = MAX_PAUSE_MS) {
    this.#maxMs = maxMs;
  }

  /** Begin again with the first pause: the last try was successful. */
  reset(): void {
    this.#nextMs = FIRST_PAUSE_MS;
  }

  /** Return the next pause, with the one that the error asks for added. */
  pauseMs(error?: MilepostError): number {
    const pauseMs = this.#nextMs;
    this.#nextMs = Math.min(2 * pauseMs, this.#maxMs);
    return (error?.retryAfterMs ?? 0) + pauseMs * (0.5 + Math.random() / 2);
  }
}

/** The longest delay of a timer of Node. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Wait for the time, or throw the reason of the signal as soon as it is aborted. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(
      () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      },
      Math.min(ms, MAX_TIMER_MS),
    );
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** Return a monotonic time in milliseconds. */
export function clock(): number {
  return performance.now();
}
