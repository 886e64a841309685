/** Retries beyond one call: which refusals are temporary, and the repetition until one is final. */
import { Backoff, clock, sleep } from "./backoff.js";
import { isUnexplained } from "./disruption.js";
import {
  DeadlineExceeded,
  InternalError,
  LimitReached,
  LostRace,
  MilepostError,
  RateLimited,
  Unavailable,
} from "./errors.js";

const TEMPORARY = [Unavailable, DeadlineExceeded, RateLimited, LostRace, InternalError] as const;
/** Tries that may meet a defect of the service, which is not likely to pass. */
const MAX_DEFECTS = 5;
const MAX_PAUSE_MS = 5_000;
/** How long unexplained refusals in a row are tried again. */
const UNEXPLAINED_MS = 300_000;

/** Return true if the same request may succeed later. */
export function isTemporary(error: MilepostError): boolean {
  return TEMPORARY.some((kind) => error instanceof kind) || isUnexplained(error);
}

/**
 * Return the answer to a request that is sent again after every temporary refusal.
 *
 * @param send Sends the request, which has the same requestId every time.
 * @param options `timeoutMs`: the time after which a temporary refusal is final too. `isLarge`: a
 *   limit without a reason is that of the size of a message, and final. `signal`: ends the pauses.
 */
export async function untilFinal<Answer>(
  send: () => Promise<Answer>,
  options: { timeoutMs: number; isLarge?: boolean; signal?: AbortSignal },
): Promise<Answer> {
  const { timeoutMs, isLarge = false, signal } = options;
  const end = clock() + timeoutMs;
  const backoff = new Backoff(MAX_PAUSE_MS);
  let defects = 0;
  let unexplainedEnd = Number.POSITIVE_INFINITY;
  for (;;) {
    let pauseMs: number;
    try {
      return await send();
    } catch (error) {
      if (!(error instanceof MilepostError && isTemporary(error))) {
        throw error;
      }
      defects += error instanceof InternalError && error.reason !== "" ? 1 : 0;
      unexplainedEnd = isUnexplained(error)
        ? Math.min(unexplainedEnd, clock() + UNEXPLAINED_MS)
        : Number.POSITIVE_INFINITY;
      pauseMs = backoff.pauseMs(error);
      const isTooLarge = isLarge && error.constructor === LimitReached;
      const isLate = clock() + pauseMs > Math.min(end, unexplainedEnd);
      if (isTooLarge || isLate || defects > MAX_DEFECTS) {
        throw error;
      }
    }
    await sleep(pauseMs, signal);
  }
}
