/** What a handler may throw, and the description of whatever it throws as a storable error. */
import type { JsonMap } from "./json.js";
import type { OperationError } from "./operation.js";

const MAX_CODE_LENGTH = 255;
const MAX_MESSAGE_LENGTH = 10_000;

/** What a permanent failure stores beside its message. */
export interface FailureFacts {
  /** The kind of error for programs; by default the name of the class. */
  readonly code?: string | undefined;
  /** The part of the input or of the system that caused it. */
  readonly source?: string | undefined;
  /** Further data. */
  readonly details?: JsonMap | undefined;
  readonly cause?: unknown;
}

/** Fails the operation for good: no other attempt can change that. May have subclasses. */
export class PermanentFailure extends Error {
  readonly code: string;
  readonly source: string | undefined;
  readonly details: JsonMap | undefined;

  constructor(message: string, facts: FailureFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.code = facts.code ?? this.constructor.name;
    this.source = facts.source;
    this.details = facts.details;
  }

  override get name(): string {
    return this.constructor.name;
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

/**
 * Return the class of the error as code and its text as message, whatever was thrown.
 *
 * @throws anything: the facts of a PermanentFailure may be code of the user.
 */
export function describe(problem: unknown): OperationError {
  const error = plain(problem);
  if (!(problem instanceof PermanentFailure)) {
    return error;
  }
  const { source, details } = problem;
  return {
    ...error,
    ...(source === undefined ? {} : { source }),
    ...(details === undefined ? {} : { details }),
  };
}

/** Return the error that replaces one which cannot be stored for this reason. */
export function refused(refusal: unknown): OperationError {
  return { code: "InvalidError", message: text("The error was refused: ", refusal) };
}

/** Return the text with that of the problem appended. */
export function text(begin: string, problem: unknown): string {
  return storable(begin + plain(problem).message, MAX_MESSAGE_LENGTH);
}

function plain(problem: unknown): OperationError {
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
  if (problem instanceof PermanentFailure) {
    return problem.code;
  }
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
