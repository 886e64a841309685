/**
 * The difference between a refusal of the service and a call that was broken on its way.
 *
 * Every refusal of the service has a reason. An error without one comes from something between: the
 * connection, a proxy, or gRPC itself. It says nothing about the request, so what may be sent twice
 * is sent again.
 */
import { type GrpcCode, LimitReached, type MilepostError, UndecodableAnswer } from "./errors.js";

/**
 * Codes of a broken call beside UNAVAILABLE: nginx resets the streams of a lost replica (INTERNAL),
 * other proxies and error pages are UNKNOWN, and a service that stops may cancel.
 */
const BROKEN: ReadonlySet<GrpcCode> = new Set<GrpcCode>(["INTERNAL", "UNKNOWN", "CANCELLED"]);
const LATE: ReadonlySet<GrpcCode> = new Set<GrpcCode>(["UNAVAILABLE", "DEADLINE_EXCEEDED"]);
/** Codes of a proxy that is full, or without a route at the moment; at the first try, of a wrong address. */
const ONCE_WORKED: ReadonlySet<GrpcCode> = new Set<GrpcCode>([
  "RESOURCE_EXHAUSTED",
  "UNIMPLEMENTED",
]);

/** Return true if the service itself has refused. */
export function isRefusal(error: MilepostError): boolean {
  return error.reason !== "" || error instanceof UndecodableAnswer;
}

/** Return true if a call was broken on its way; `hasWorked` if the service answered before. */
export function isDisruption(error: MilepostError, hasWorked = false): boolean {
  const code = error.code;
  if (isRefusal(error) || code === undefined) {
    return false;
  }
  return BROKEN.has(code) || LATE.has(code) || (hasWorked && ONCE_WORKED.has(code));
}

/**
 * Return true for the refusal of a proxy or of gRPC that may be temporary or not.
 *
 * A proxy refuses with the same codes a request that is too large and one that came too early.
 */
export function isUnexplained(error: MilepostError): boolean {
  const isVague =
    (error.code !== undefined && BROKEN.has(error.code)) || error.constructor === LimitReached;
  return isVague && !isRefusal(error);
}
