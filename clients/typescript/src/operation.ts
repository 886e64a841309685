/** The nouns of Milepost as plain values: an operation, its status, its errors, its events. */
import { create, toBinary } from "@bufbuild/protobuf";
import { durationToMs, toDate } from "./convert.js";
import { UndecodableAnswer } from "./errors.js";
import {
  NextStep as NextStepNumber,
  type OperationError as OperationErrorMessage,
  OperationErrorSchema,
  type Operation as OperationMessage,
  OperationStatus,
} from "./gen/milepost/v1/operation_pb.js";
import type { OperationEvent as EventMessage } from "./gen/milepost/v1/operation_service_pb.js";
import { fromAny, type JsonMap, toStruct, wellFormed } from "./json.js";

/**
 * The status of an operation. The last three are terminal. UNKNOWN is a status of a newer service,
 * which this client treats as not terminal.
 */
export type Status = "UNKNOWN" | "PENDING" | "PROCESSING" | "COMPLETED" | "FAILED" | "CANCELLED";

/** The next required event: a CLAIM by a worker, the RENEWAL of its lease, or its END. */
export type NextStep = "CLAIM" | "RENEWAL" | "END";

/** One reason of a failure, as the worker reported it. Not an exception. */
export interface OperationError {
  /** The kind of error for programs, such as `CODEC_UNSUPPORTED`. */
  readonly code: string;
  /** The reason as a text. */
  readonly message: string;
  /** The part of the input or of the system that caused it. */
  readonly source?: string | undefined;
  /** Further data of the worker. */
  readonly details?: JsonMap | undefined;
}

/** Pauses between the attempts of an operation. */
export interface RetryPolicy {
  /** The pause after the first failed attempt; 1 s by default. */
  readonly initialBackoffMs?: number | undefined;
  /** The factor between two pauses; 2 by default. */
  readonly backoffMultiplier?: number | undefined;
  /** The longest pause; 5 min by default. */
  readonly maxBackoffMs?: number | undefined;
}

/**
 * One piece of work, in the state that was read. What is absent is undefined.
 *
 * `list` leaves out `metadata`, `result`, `errors` and `checkpoint` unless asked for them.
 */
export interface Operation {
  readonly id: string;
  readonly function: string;
  readonly version: string | undefined;
  readonly owner: string;
  /** The data of the caller; empty if none was given. */
  readonly metadata: JsonMap;
  readonly originalRequestId: string | undefined;
  /** The URL that receives webhooks, without its query; shown to the owner only. */
  readonly callbackUrl: string | undefined;
  readonly status: Status;
  /** 0.0 to 1.0; undefined until first reported. */
  readonly progress: number | undefined;
  readonly progressMessage: string | undefined;
  /**
   * The result: a plain value, null included, or a `google.protobuf.Any` of any other type;
   * undefined without one.
   */
  readonly result: unknown;
  readonly errors: readonly OperationError[];
  /** The state that a worker saved for the next attempt: as `result`. */
  readonly checkpoint: unknown;
  /** Rises by one with every change; the token for `expectedRevision`. */
  readonly revision: number;
  /** The number of starts; the token by which the writes of an earlier worker are refused. */
  readonly attempt: number;
  readonly maxAttempts: number;
  /** The number of attempts that ended badly; at most `maxAttempts`. */
  readonly failedAttempts: number;
  /** When it can be claimed, while it is pending and waits. */
  readonly nextAttemptTime: Date | undefined;
  readonly worker: string | undefined;
  /** 0 to 9; a higher one is claimed first. */
  readonly priority: number;
  readonly scheduleTime: Date | undefined;
  readonly uniqueKey: string | undefined;
  readonly retryPolicy: RetryPolicy;
  readonly queueTimeoutMs: number | undefined;
  readonly runTimeoutMs: number | undefined;
  readonly ttlMs: number;
  /** The suggested pause before the next read. */
  readonly retryAfterMs: number;
  readonly createTime: Date;
  readonly startTime: Date | undefined;
  readonly progressTime: Date | undefined;
  /** When it was completed or failed. */
  readonly completeTime: Date | undefined;
  readonly cancelTime: Date | undefined;
  readonly cancelRequestTime: Date | undefined;
  readonly cancelDeliveredTime: Date | undefined;
  readonly cancelExpireTime: Date | undefined;
  readonly cancelReason: string | undefined;
  /** The trace that created the operation, if sampled, as the header of W3C Trace Context. */
  readonly traceparent: string | undefined;
  readonly leaseExpireTime: Date | undefined;
  readonly queueExpireTime: Date | undefined;
  readonly runExpireTime: Date | undefined;
  readonly expireTime: Date;
  readonly nextStep: NextStep | undefined;
  /** The deadline of the next step; undefined after the end. */
  readonly nextStepDeadline: Date | undefined;
  /** True if the call changed nothing, because an earlier one with the same requestId did. */
  readonly replayed: boolean;
  /** True if a create returned the active operation with the same unique key. */
  readonly joined: boolean;
}

/** Record of one transition of an operation. */
export interface OperationEvent {
  readonly revision: number;
  /** The type of the event, such as `operation.retrying`. */
  readonly type: string;
  /** The name of the transition, such as `retry`. */
  readonly transition: string;
  readonly time: Date | undefined;
  /** The subject that made the transition; `milepost` for the service itself. */
  readonly actor: string;
  readonly attempt: number;
  readonly worker: string | undefined;
  readonly reason: string | undefined;
  readonly errors: readonly OperationError[];
}

const TERMINAL: ReadonlySet<Status> = new Set<Status>(["COMPLETED", "FAILED", "CANCELLED"]);

const STATUSES: ReadonlyMap<number, Status> = new Map<number, Status>([
  [OperationStatus.PENDING, "PENDING"],
  [OperationStatus.PROCESSING, "PROCESSING"],
  [OperationStatus.COMPLETED, "COMPLETED"],
  [OperationStatus.FAILED, "FAILED"],
  [OperationStatus.CANCELLED, "CANCELLED"],
]);

const NEXT_STEPS: ReadonlyMap<number, NextStep> = new Map<number, NextStep>([
  [NextStepNumber.CLAIM, "CLAIM"],
  [NextStepNumber.RENEWAL, "RENEWAL"],
  [NextStepNumber.END, "END"],
]);

/** Return true if the operation has ended. */
export function isTerminal(operation: Operation): boolean {
  return TERMINAL.has(operation.status);
}

/**
 * Return the statuses as numbers.
 *
 * @throws TypeError if one of them is UNKNOWN, which no operation has.
 */
export function toStatuses(statuses: Iterable<Status>): OperationStatus[] {
  return Array.from(statuses, (status) => {
    for (const [number, name] of STATUSES) {
      if (name === status) {
        return number;
      }
    }
    throw new TypeError(`no operation has the status ${status}`);
  });
}

/** Return the errors of a failure as messages. */
export function toErrors(errors: Iterable<OperationError>): OperationErrorMessage[] {
  return Array.from(errors, (error) =>
    create(OperationErrorSchema, {
      code: wellFormed(error.code, "code"),
      message: wellFormed(error.message, "message"),
      ...(error.source === undefined ? {} : { source: wellFormed(error.source, "source") }),
      ...(error.details === undefined ? {} : { details: toStruct(error.details, "details") }),
    }),
  );
}

/** Return the size of the error as it is sent, in bytes. */
export function sizeOf(error: OperationErrorMessage): number {
  return toBinary(OperationErrorSchema, error).length;
}

/** Return the operation of an answer as a value. */
export function fromOperation(
  message: OperationMessage | undefined,
  { replayed = false, joined = false } = {},
): Operation {
  if (message === undefined) {
    throw new UndecodableAnswer("the answer of the service holds no operation");
  }
  return {
    id: message.id,
    function: message.function,
    version: message.version,
    owner: message.owner,
    metadata: (message.metadata ?? {}) as JsonMap,
    originalRequestId: message.originalRequestId,
    callbackUrl: message.callbackUrl,
    status: STATUSES.get(message.status) ?? "UNKNOWN",
    progress: message.progress,
    progressMessage: message.progressMessage,
    result: message.result === undefined ? undefined : fromAny(message.result),
    errors: message.errors.map(fromError),
    checkpoint: message.checkpoint === undefined ? undefined : fromAny(message.checkpoint),
    revision: toRevision(message.revision),
    attempt: message.attempt,
    maxAttempts: message.maxAttempts,
    failedAttempts: message.failedAttempts,
    worker: message.worker,
    priority: message.priority,
    uniqueKey: message.uniqueKey,
    retryPolicy: fromRetryPolicy(message),
    queueTimeoutMs: optionalMs(message.queueTimeout),
    runTimeoutMs: optionalMs(message.runTimeout),
    ttlMs: optionalMs(message.ttl) ?? 0,
    retryAfterMs: optionalMs(message.retryAfter) ?? 0,
    ...times(message),
    cancelReason: message.cancelReason,
    traceparent: message.traceparent,
    nextStep: NEXT_STEPS.get(message.nextStep),
    replayed,
    joined,
  };
}

function times(message: OperationMessage) {
  return {
    createTime: toDate(message.createTime) ?? new Date(0),
    scheduleTime: toDate(message.scheduleTime),
    nextAttemptTime: toDate(message.nextAttemptTime),
    startTime: toDate(message.startTime),
    progressTime: toDate(message.progressTime),
    completeTime: toDate(message.completeTime),
    cancelTime: toDate(message.cancelTime),
    cancelRequestTime: toDate(message.cancelRequestTime),
    cancelDeliveredTime: toDate(message.cancelDeliveredTime),
    cancelExpireTime: toDate(message.cancelExpireTime),
    leaseExpireTime: toDate(message.leaseExpireTime),
    queueExpireTime: toDate(message.queueExpireTime),
    runExpireTime: toDate(message.runExpireTime),
    expireTime: toDate(message.expireTime) ?? new Date(0),
    nextStepDeadline: toDate(message.nextStepDeadline),
  };
}

/** Return the event of an answer as a value. */
export function fromEvent(message: EventMessage): OperationEvent {
  return {
    revision: toRevision(message.revision),
    type: message.type,
    transition: message.transition,
    time: toDate(message.time),
    actor: message.actor,
    attempt: message.attempt,
    worker: message.worker,
    reason: message.reason,
    errors: message.errors.map(fromError),
  };
}

function fromError(message: OperationErrorMessage): OperationError {
  return {
    code: message.code,
    message: message.message,
    source: message.source,
    details: message.details as JsonMap | undefined,
  };
}

function fromRetryPolicy({ retryPolicy }: OperationMessage): RetryPolicy {
  return {
    initialBackoffMs: optionalMs(retryPolicy?.initialBackoff),
    backoffMultiplier: retryPolicy?.backoffMultiplier,
    maxBackoffMs: optionalMs(retryPolicy?.maxBackoff),
  };
}

function optionalMs(duration: Parameters<typeof durationToMs>[0] | undefined): number | undefined {
  return duration === undefined ? undefined : durationToMs(duration);
}

/** Return the revision as a number. One beyond 2**53 would lose digits. */
function toRevision(revision: bigint): number {
  if (revision > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new UndecodableAnswer(`the revision ${revision} is beyond 2**53`);
  }
  return Number(revision);
}
