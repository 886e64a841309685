/** The watch of one operation: one sequence of changes over as many connections as it takes. */
import { Backoff, clock, sleep } from "./backoff.js";
import type { Calls } from "./calls.js";
import { ClientClosed } from "./channel.js";
import { isDisruption } from "./disruption.js";
import { LimitReached, type MilepostError, Unavailable } from "./errors.js";
import { requireWellFormed } from "./json.js";
import { fromOperation, type Operation } from "./operation.js";
import { rebuild } from "./refusal.js";

/** How long a watch that has worked before tries to connect again. */
const MAX_OUTAGE_MS = 300_000;

/** Yield the operation after each of its changes; see `Milepost.watch`. */
export async function* changes(
  calls: Calls,
  operationId: string,
  options: { afterRevision: bigint; signal: AbortSignal | undefined; deadlineMs: number },
): AsyncGenerator<Operation, void, undefined> {
  const { signal } = options;
  requireWellFormed(operationId, "operationId");
  const backoff = new Backoff();
  let afterRevision = options.afterRevision;
  let end = clock() + options.deadlineMs;
  let hasWorked = false;
  for (;;) {
    signal?.throwIfAborted();
    const ending = new AbortController();
    const both = signal === undefined ? ending.signal : AbortSignal.any([ending.signal, signal]);
    let isYielding = false;
    let pauseMs: number;
    try {
      const items = calls.operations.watchOperation(
        { operationId, afterRevision },
        { signal: both },
      );
      for await (const { item } of items) {
        hasWorked = true;
        if (item.case === "operation") {
          afterRevision = item.value.revision;
          const operation = fromOperation(item.value);
          isYielding = true;
          yield operation;
          isYielding = false;
        }
        // Not before the yield: the caller may spend any time on the change.
        end = clock() + MAX_OUTAGE_MS;
        backoff.reset();
      }
      return;
    } catch (failure) {
      signal?.throwIfAborted();
      if (isYielding) {
        throw failure; // thrown into the generator, and no failure of the stream
      }
      if (failure instanceof ClientClosed) {
        throw failure;
      }
      const error = rebuild(failure);
      pauseMs = backoff.pauseMs(error);
      if (!isTemporary(error, hasWorked) || clock() + pauseMs >= end) {
        throw error;
      }
    } finally {
      ending.abort();
    }
    await sleep(pauseMs, signal);
  }
}

/** Return true if the watch is to connect again. A limit does not end one that has worked. */
function isTemporary(error: MilepostError, hasWorked: boolean): boolean {
  const isAway = error instanceof Unavailable || isDisruption(error, hasWorked);
  return isAway || (hasWorked && error instanceof LimitReached);
}
