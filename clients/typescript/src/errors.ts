/**
 * The errors of the client, as one tree.
 *
 * ```
 * MilepostError
 * ├── InvalidRequest                   a field is malformed: see `violations`
 * │   └── ProgressDecrease             progress would decrease
 * ├── Unauthenticated                  the credential is missing or invalid
 * ├── PermissionDenied                 the credential lacks the role that the call requires
 * ├── NotFound                         no such resource is visible to you
 * │   ├── ApiKeyNotFound               unknown API key
 * │   ├── DeliveryNotFound             unknown, or of another owner's operation
 * │   ├── SigningSecretNotFound        you have no signing secret yet
 * │   └── OperationNotFound            unknown, or not visible to you
 * │       ├── OperationExpired         your own operation, expired
 * │       └── OperationDeleted         your own operation, deleted
 * ├── IllegalTransition                not allowed: see `transition`, `status`, `allowed`
 * │   └── Cancelled                    not allowed because the operation is cancelled
 * ├── CancellationNotRequested         an acknowledgement without a request
 * ├── Conflict                         based on an old copy: read again and retry
 * │   ├── RevisionMismatch             the operation is not at `expectedRevision`
 * │   ├── StaleAttempt                 the attempt is over: stop working on the operation
 * │   └── LostRace                     concurrent changes preceded every try
 * ├── RevisionAhead                    the operation is not at `afterRevision` yet, or no longer
 * ├── RequestIdReused                  the same requestId with other content
 * ├── UniqueKeyTaken                   an active operation has the `uniqueKey`: see `operationId`
 * ├── WebhooksNotConfigured            this service sends no webhooks
 * ├── LimitReached                     a limit: try again after `retryAfterMs`
 * │   ├── RateLimited                  too many calls
 * │   ├── QuotaExceeded                too many active operations
 * │   └── StreamFull                   too many operations on one progress stream
 * ├── Unavailable                      temporary; the client retried until the deadline
 * │   ├── StoreUnavailable             the database does not answer
 * │   ├── IdentityProviderUnavailable  the issuer of your token does not answer
 * │   ├── Overloaded                   the replica holds as many calls as it accepts
 * │   └── Draining                     the replica is shutting down
 * ├── DeadlineExceeded                 no response in time: a change may have happened
 * ├── NotAvailable                     documented, but not in this release of the service
 * ├── UndecodableAnswer                accepted, but this client cannot read the response
 * ├── InternalError                    a defect of the service: see `metadata` for the trace
 * │   └── IdsExhausted                 the service found no free id
 * └── NoResult                         `result` has no value: see `operation`
 *     ├── OperationFailed              it failed: see `errors`
 *     ├── OperationCancelled           it was cancelled
 *     └── StillRunning                 it had not ended when the timeout passed
 * ```
 *
 * Every error except those of the last branch is the response to a call. `refusal.ts` rebuilds it
 * from the reason that the service sent, never from its text.
 */
import type { Operation, OperationError } from "./operation.js";

/** A gRPC code by its name. */
export type GrpcCode =
  | "CANCELLED"
  | "UNKNOWN"
  | "INVALID_ARGUMENT"
  | "DEADLINE_EXCEEDED"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "ABORTED"
  | "OUT_OF_RANGE"
  | "UNIMPLEMENTED"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "DATA_LOSS"
  | "UNAUTHENTICATED";

/** One invalid field of a request. */
export interface Violation {
  readonly field: string;
  readonly problem: string;
}

/** The facts of an error beside its message. */
export interface ErrorFacts {
  readonly code?: GrpcCode | undefined;
  readonly reason?: string | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  readonly violations?: readonly Violation[] | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/** The root of the tree. Thrown itself only for responses without a class of their own. */
export class MilepostError extends Error {
  /** The gRPC code of the response; undefined without a response. */
  readonly code: GrpcCode | undefined;
  /** The machine-readable reason, such as `ILLEGAL_TRANSITION`; empty if none was sent. */
  readonly reason: string;
  /** The facts behind the message, by name. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Every invalid field. */
  readonly violations: readonly Violation[];
  /** Delay before the next try that the service asks for, in milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.code = facts.code;
    this.reason = facts.reason ?? "";
    this.metadata = facts.metadata ?? {};
    this.violations = facts.violations ?? [];
    this.retryAfterMs = facts.retryAfterMs;
  }

  override get name(): string {
    return this.constructor.name;
  }
}

/** A malformed request. No data was read or changed. */
export class InvalidRequest extends MilepostError {}

/** A decrease of progress within one attempt, beyond a small tolerance. */
export class ProgressDecrease extends InvalidRequest {}

/** A missing or invalid credential. No data was read. */
export class Unauthenticated extends MilepostError {}

/** A credential without the role that the call requires. Independent of any operation. */
export class PermissionDenied extends MilepostError {}

/** A resource that does not exist or is not visible to you. */
export class NotFound extends MilepostError {}

/** An unknown API key. */
export class ApiKeyNotFound extends NotFound {}

/** A delivery that is not visible to you: unknown, foreign or purged. */
export class DeliveryNotFound extends NotFound {}

/** No signing secret yet: create an operation with a callback URL, or rotate. */
export class SigningSecretNotFound extends NotFound {}

/** An operation that is not visible to you: unknown, foreign, expired or deleted. */
export class OperationNotFound extends NotFound {}

/** Your own operation, which has expired. */
export class OperationExpired extends OperationNotFound {}

/** Your own operation, which was deleted. */
export class OperationDeleted extends OperationNotFound {}

/** A transition that the current status does not allow. */
export class IllegalTransition extends MilepostError {
  /** The requested transition, such as `complete`. */
  get transition(): string {
    return this.metadata.transition ?? "";
  }

  /** The current status. */
  get status(): string {
    return this.metadata.status ?? "";
  }

  /** The statuses that allow the transition. */
  get allowed(): ReadonlySet<string> {
    return new Set((this.metadata.allowed ?? "").split(",").filter((status) => status !== ""));
  }
}

/** A transition of a cancelled operation. The worker must stop. */
export class Cancelled extends IllegalTransition {}

/** The acknowledgement of a cancel that was not requested. */
export class CancellationNotRequested extends MilepostError {}

/** A request based on an old copy. Read the operation again and retry. */
export class Conflict extends MilepostError {}

/** An operation that has changed since the expected revision. */
export class RevisionMismatch extends Conflict {}

/** An attempt that has ended: its lease is lost, or another attempt has started. */
export class StaleAttempt extends Conflict {}

/** A transition that concurrent changes preceded at every try. */
export class LostRace extends Conflict {}

/**
 * A watch after a revision that the operation has not reached, or has no longer.
 *
 * The database of the service was restored from a backup, perhaps: watch again without
 * `afterRevision`.
 */
export class RevisionAhead extends MilepostError {}

/** A requestId that was used for a request with other content. */
export class RequestIdReused extends MilepostError {}

/** A create that was refused because an active operation of yours has the unique key. */
export class UniqueKeyTaken extends MilepostError {
  /** The id of that operation. */
  get operationId(): string {
    return this.metadata.operation_id ?? "";
  }
}

/** A request about webhooks to a service that sends none. */
export class WebhooksNotConfigured extends MilepostError {}

/** A limit of the principal. Nothing was changed. */
export class LimitReached extends MilepostError {}

/** Too many calls in a short time. */
export class RateLimited extends LimitReached {}

/** The maximum number of active operations of one owner. */
export class QuotaExceeded extends LimitReached {}

/** The maximum number of operations on one progress stream. */
export class StreamFull extends LimitReached {}

/** A temporary failure. The client retried until the deadline, where that is safe. */
export class Unavailable extends MilepostError {}

/** The database of the service does not answer. */
export class StoreUnavailable extends Unavailable {}

/** The issuer of the token does not provide its keys to the service. */
export class IdentityProviderUnavailable extends Unavailable {}

/** The replica holds as many calls as it accepts. */
export class Overloaded extends Unavailable {}

/** The replica is shutting down. */
export class Draining extends Unavailable {}

/** No response in time. A change may or may not have happened. */
export class DeadlineExceeded extends MilepostError {}

/** A documented call that this release of the service does not serve. */
export class NotAvailable extends MilepostError {}

/** A response that this client cannot decode. The service has accepted the request. */
export class UndecodableAnswer extends MilepostError {}

/** A defect of the service. `metadata` holds the trace id of its log entry. */
export class InternalError extends MilepostError {}

/** The service found no free id for a new operation. */
export class IdsExhausted extends InternalError {}

/** An operation without a result. */
export class NoResult extends MilepostError {
  /** The operation at that time. */
  readonly operation: Operation;

  constructor(operation: Operation, message = `operation ${operation.id} is ${operation.status}`) {
    super(message);
    this.operation = operation;
  }
}

/** The operation failed. */
export class OperationFailed extends NoResult {
  constructor(operation: Operation) {
    const causes = operation.errors.map((error) => `${error.code}: ${error.message}`).join("; ");
    super(operation, `operation ${operation.id} failed: ${causes}`);
  }

  /** The causes, as the worker or the service reported them. */
  get errors(): readonly OperationError[] {
    return this.operation.errors;
  }
}

/** The operation was cancelled. */
export class OperationCancelled extends NoResult {}

/** The operation had not ended when the timeout passed. It goes on; wait again. */
export class StillRunning extends NoResult {}

/** Return the error for an operation without a result. */
export function noResult(operation: Operation): NoResult {
  switch (operation.status) {
    case "FAILED":
      return new OperationFailed(operation);
    case "CANCELLED":
      return new OperationCancelled(operation);
    default:
      return new StillRunning(operation);
  }
}

/** Return true if the error says that the work on its operation is over for this worker. */
export function isOver(error: unknown): error is MilepostError {
  return (
    error instanceof IllegalTransition || error instanceof StaleAttempt || error instanceof NotFound
  );
}
