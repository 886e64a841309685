/** The long poll for the end of an operation: the service answers when it has ended. */
import { Backoff, clock, sleep } from "./backoff.js";
import { LimitReached } from "./errors.js";
import { isTerminal, type Operation } from "./operation.js";

/** How long one call waits. The next one follows at once. */
const MAX_WAIT_MS = 50_000;
/**
 * Bound of the pause after an early answer: from a service that stops, or whose own maximum is
 * smaller.
 */
const MAX_PAUSE_MS = 5_000;
/** The share of the requested time before which an answer counts as early. */
const EARLY_SHARE = 0.5;

/**
 * Return the operation once it is terminal, or as it stands when the timeout has passed.
 *
 * A limit that is reached meanwhile only delays the next call, until the service allows it.
 */
export async function untilTerminal(
  wait: (waitingMs: number) => Promise<Operation>,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<Operation> {
  const end = clock() + timeoutMs;
  const share = () => Math.max(0, Math.min(end - clock(), MAX_WAIT_MS));
  let begun = clock();
  let asked = share();
  let operation = await wait(asked);
  const backoff = new Backoff(MAX_PAUSE_MS);
  while (!isTerminal(operation) && clock() < end) {
    if (clock() - begun < asked * EARLY_SHARE) {
      await sleep(Math.min(backoff.pauseMs(), Math.max(0, end - clock())), signal);
    }
    begun = clock();
    asked = share();
    try {
      operation = await wait(asked);
    } catch (error) {
      if (!(error instanceof LimitReached)) {
        throw error;
      }
      await sleep(Math.min(backoff.pauseMs(error), Math.max(0, end - clock())), signal);
    }
  }
  return operation;
}
