/** A monitor of the event loop, which renews leases only while no handler blocks it. */
import { clock } from "./backoff.js";
import type { Logger } from "./logger.js";

/** The share of a lease for which the loop may be blocked: renewals begin after a third of it. */
const MAX_DELAY_SHARE = 0.6;
const MAX_INTERVAL_MS = 1_000;

/** Warn whenever the loop did not run for so long that leases may have been lost; return the end. */
export function monitorLoop(leaseMs: number, log: Logger): () => void {
  const intervalMs = Math.min(MAX_INTERVAL_MS, leaseMs / 10);
  let dueTime = clock() + intervalMs;
  const timer = setInterval(() => {
    const delayMs = clock() - dueTime;
    dueTime = clock() + intervalMs;
    if (delayMs > MAX_DELAY_SHARE * leaseMs) {
      log.warn(
        `the event loop was blocked for ${(delayMs / 1000).toFixed(1)} s, and no lease ` +
          `(${(leaseMs / 1000).toFixed(1)} s) could be renewed: operations may have gone to ` +
          "another worker. A handler must not block: await instead, or use a worker thread",
      );
    }
  }, intervalMs);
  timer.unref();
  return () => clearInterval(timer);
}
