/** The errors of the client, rebuilt from what the service, or something before it, answered. */
import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { ClientClosed } from "./channel.js";
import { durationToMs } from "./convert.js";
import type { ErrorFacts, GrpcCode, MilepostError } from "./errors.js";
import * as errors from "./errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";

const DOMAIN = "milepost";

type ErrorClass = new (message: string, facts: ErrorFacts) => MilepostError;

/** The class of every reason that the service gives. */
export const BY_REASON: Readonly<Record<string, ErrorClass>> = {
  INVALID_REQUEST: errors.InvalidRequest,
  PROGRESS_DECREASE: errors.ProgressDecrease,
  UNAUTHENTICATED: errors.Unauthenticated,
  PERMISSION_DENIED: errors.PermissionDenied,
  API_KEY_NOT_FOUND: errors.ApiKeyNotFound,
  OPERATION_NOT_FOUND: errors.OperationNotFound,
  OPERATION_EXPIRED: errors.OperationExpired,
  OPERATION_DELETED: errors.OperationDeleted,
  DELIVERY_NOT_FOUND: errors.DeliveryNotFound,
  SIGNING_SECRET_NOT_FOUND: errors.SigningSecretNotFound,
  ILLEGAL_TRANSITION: errors.IllegalTransition,
  CANCELLATION_NOT_REQUESTED: errors.CancellationNotRequested,
  REVISION_MISMATCH: errors.RevisionMismatch,
  STALE_ATTEMPT: errors.StaleAttempt,
  LOST_RACE: errors.LostRace,
  REVISION_AHEAD: errors.RevisionAhead,
  REQUEST_ID_REUSED: errors.RequestIdReused,
  UNIQUE_KEY_TAKEN: errors.UniqueKeyTaken,
  WEBHOOKS_NOT_CONFIGURED: errors.WebhooksNotConfigured,
  RATE_LIMITED: errors.RateLimited,
  QUOTA_EXCEEDED: errors.QuotaExceeded,
  STREAM_FULL: errors.StreamFull,
  STORE_UNAVAILABLE: errors.StoreUnavailable,
  IDENTITY_PROVIDER_UNAVAILABLE: errors.IdentityProviderUnavailable,
  OVERLOADED: errors.Overloaded,
  DRAINING: errors.Draining,
  INTERNAL: errors.InternalError,
  IDS_EXHAUSTED: errors.IdsExhausted,
};

/** The class of a reason of a newer service, and of an answer of gRPC itself. */
const BY_CODE: Partial<Record<GrpcCode, ErrorClass>> = {
  INVALID_ARGUMENT: errors.InvalidRequest,
  UNAUTHENTICATED: errors.Unauthenticated,
  PERMISSION_DENIED: errors.PermissionDenied,
  NOT_FOUND: errors.NotFound,
  ABORTED: errors.Conflict,
  RESOURCE_EXHAUSTED: errors.LimitReached,
  UNAVAILABLE: errors.Unavailable,
  DEADLINE_EXCEEDED: errors.DeadlineExceeded,
  UNIMPLEMENTED: errors.NotAvailable,
  INTERNAL: errors.InternalError,
};

const CODES: Readonly<Record<Code, GrpcCode>> = {
  [Code.Canceled]: "CANCELLED",
  [Code.Unknown]: "UNKNOWN",
  [Code.InvalidArgument]: "INVALID_ARGUMENT",
  [Code.DeadlineExceeded]: "DEADLINE_EXCEEDED",
  [Code.NotFound]: "NOT_FOUND",
  [Code.AlreadyExists]: "ALREADY_EXISTS",
  [Code.PermissionDenied]: "PERMISSION_DENIED",
  [Code.ResourceExhausted]: "RESOURCE_EXHAUSTED",
  [Code.FailedPrecondition]: "FAILED_PRECONDITION",
  [Code.Aborted]: "ABORTED",
  [Code.OutOfRange]: "OUT_OF_RANGE",
  [Code.Unimplemented]: "UNIMPLEMENTED",
  [Code.Internal]: "INTERNAL",
  [Code.Unavailable]: "UNAVAILABLE",
  [Code.DataLoss]: "DATA_LOSS",
  [Code.Unauthenticated]: "UNAUTHENTICATED",
};

/**
 * The beginnings of two texts of the transport, which gives these errors no class of their own: a
 * response that it cannot parse, and a request that it cannot send.
 */
const UNDECODABLE = "parse binary: ";
const UNENCODABLE = "serialize binary: ";

/** Return the error that the failure of a call stands for. */
export function rebuild(failure: unknown): MilepostError {
  if (failure instanceof errors.MilepostError) {
    return failure;
  }
  if (failure instanceof ConnectError && failure.cause instanceof errors.MilepostError) {
    return failure.cause;
  }
  const isClosed = failure instanceof ClientClosed;
  const refusal = ConnectError.from(failure, isClosed ? Code.FailedPrecondition : Code.Unavailable);
  const info = detail(refusal, ErrorInfoSchema);
  const reason = info?.domain === DOMAIN ? info.reason : "";
  const metadata = info?.domain === DOMAIN ? info.metadata : {};
  if (reason === "" && refusal.rawMessage.startsWith(UNDECODABLE)) {
    const message = "the service accepted the call, but its response cannot be decoded";
    return new errors.UndecodableAnswer(message, { code: "INTERNAL", cause: failure });
  }
  if (reason === "" && refusal.rawMessage.startsWith(UNENCODABLE)) {
    return new errors.InvalidRequest(refusal.rawMessage, { code: "INVALID_ARGUMENT" });
  }
  const code = reason === "" ? codeOf(refusal) : CODES[refusal.code];
  const retry = detail(refusal, RetryInfoSchema)?.retryDelay;
  return new (errorClass(reason, metadata, code))(
    refusal.rawMessage || `the call ended with ${code}`,
    {
      code,
      reason,
      metadata,
      violations: (detail(refusal, BadRequestSchema)?.fieldViolations ?? []).map((violation) => ({
        field: violation.field,
        problem: violation.description,
      })),
      retryAfterMs: retry === undefined ? undefined : durationToMs(retry),
      cause: reason === "" ? failure : undefined, // a refusal of the service says it all
    },
  );
}

/** Return the class of a refusal, by its reason, or by its code where that is unknown. */
export function errorClass(
  reason: string,
  facts: Readonly<Record<string, string>>,
  code?: GrpcCode,
): ErrorClass {
  if (reason === "ILLEGAL_TRANSITION" && facts.status === "CANCELLED") {
    return errors.Cancelled;
  }
  const known = Object.hasOwn(BY_REASON, reason) ? BY_REASON[reason] : undefined;
  return known ?? (code === undefined ? undefined : BY_CODE[code]) ?? errors.MilepostError;
}

/** The codes of the transport for a lost connection. */
const LOST: ReadonlySet<Code> = new Set([Code.Aborted, Code.Canceled]);

/**
 * Return the code of an error without a reason.
 *
 * The transport reports a lost connection with other codes than gRPC does, and without a status
 * that was sent. A call that the user aborts throws the user's reason.
 */
function codeOf(refusal: ConnectError): GrpcCode {
  const wasSent = refusal.metadata.has("grpc-status");
  const isLost = !wasSent && (LOST.has(refusal.code) || isFromNode(refusal.cause));
  return isLost ? "UNAVAILABLE" : CODES[refusal.code];
}

/** Return true for an error of a socket, of TLS or of HTTP/2, which Node gives a code as a text. */
function isFromNode(cause: unknown): boolean {
  for (let error = cause; error instanceof Error; error = error.cause) {
    if ("code" in error && typeof error.code === "string") {
      return true;
    }
  }
  return false;
}

/** Return the first detail of the kind that can be decoded. */
function detail<Desc extends DescMessage>(
  refusal: ConnectError,
  schema: Desc,
): MessageShape<Desc> | undefined {
  for (const each of refusal.details) {
    if ("type" in each && each.type === schema.typeName) {
      try {
        return fromBinary(schema, each.value);
      } catch {
        // A detail that cannot be decoded is as good as none.
      }
    }
  }
  return undefined;
}
