/** What a handler may throw, and the description of whatever it throws as a storable error. */
import type { JsonMap } from "./json.js";
import type { OperationError } from "./operation.js";

const MAX_CODE_LENGTH = 255;
const MAX_MESSAGE_LENGTH = 10_000;

/** Fails the operation for good: another attempt would fail likewise. */
export class PermanentFailure extends Error {
  readonly error: OperationError;

  /**
   * @param code The kind of error for programs, such as `CODEC_UNSUPPORTED`.
   * @param message The reason as a text.
   * @param facts The part of the input or the system that caused it, and further data.
   */
  constructor(
    code: string,
    message: string,
    facts: { readonly source?: string; readonly details?: JsonMap } = {},
  ) {
    super(message);
    this.error = { code, message, ...facts };
  }

  override get name(): string {
    return "PermanentFailure";
  }
}

/** Fails the attempt, and asks for the next one after this delay, if attempts are left. */
export class RetryLater extends Error {
  readonly delayMs: number;

  constructor(delayMs: number, message = "to be tried again later", options?: ErrorOptions) {
    super(message, options);
    this.delayMs = delayMs;
  }

  override get name(): string {
    return "RetryLater";
  }
}

/**
 * The reason of `work.cancelRequested`: the owner asks to cancel the operation, with a grace.
 *
 * Thrown by a handler, it acknowledges the cancel.
 */
export class CancelRequested extends Error {
  override get name(): string {
    return "CancelRequested";
  }
}

/** The reason of `work.signal` when the worker stops: the operation is given back. */
export class WorkerStopped extends Error {
  override get name(): string {
    return "WorkerStopped";
  }
}

/** Return true if a handler threw this reason of a signal, or what an aborted call made of it. */
export function isCausedBy(problem: unknown, reason: unknown): boolean {
  return (
    reason !== undefined &&
    (problem === reason || (problem instanceof Error && problem.cause === reason))
  );
}

/** Return the class of the error as code and its text as message, whatever was thrown. */
export function describe(problem: unknown): OperationError {
  if (problem instanceof PermanentFailure) {
    return {
      ...problem.error,
      code: storable(problem.error.code, MAX_CODE_LENGTH) || "PermanentFailure",
      message: storable(problem.error.message, MAX_MESSAGE_LENGTH) || "without a message",
    };
  }
  const code =
    storable(
      attempt(() => kindOf(problem)),
      MAX_CODE_LENGTH,
    ) || "Error";
  const message = storable(
    attempt(() => textOf(problem)),
    MAX_MESSAGE_LENGTH,
  );
  return { code, message: message || `${code} without a readable text` };
}

function kindOf(problem: unknown): unknown {
  return problem instanceof Error ? problem.name : "ThrownValue";
}

function textOf(problem: unknown): unknown {
  return problem instanceof Error ? problem.message : String(problem);
}

/** Return what the function returns, which is code of the user and may fail too. */
function attempt(read: () => unknown): string {
  try {
    const found = read();
    return typeof found === "string" ? found.trim() : "";
  } catch {
    return "";
  }
}

/** Return the text without what neither UTF-8 nor the store can hold. */
function storable(text: string, maxLength: number): string {
  return String(text)
    .slice(0, maxLength)
    .replaceAll("\0", "\\x00")
    .replace(/\p{Surrogate}/gu, (lone) => `\\u${lone.charCodeAt(0).toString(16)}`)
    .slice(0, maxLength)
    .trim();
}
