/** The context of OpenTelemetry, passed on with every call where its API is installed. */
import { createRequire } from "node:module";

interface Api {
  readonly context: { active(): unknown; with<T>(context: unknown, run: () => T): T };
  readonly propagation: { inject(context: unknown, carrier: Record<string, string>): void };
  readonly trace: { setSpanContext(context: unknown, span: object): unknown };
  isSpanContextValid(span: object): boolean;
}

const FORM = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

/** The API is a singleton of the process, so it does not matter how it is loaded. */
function load(): Api | undefined {
  try {
    return createRequire(import.meta.url)("@opentelemetry/api") as Api;
  } catch {
    return undefined;
  }
}

const api = load();

/** Return the headers that carry the active trace; none without OpenTelemetry. */
export function traceHeaders(): Readonly<Record<string, string>> {
  const carrier: Record<string, string> = {};
  api?.propagation.inject(api.context.active(), carrier);
  return carrier;
}

/**
 * Run a function in the trace that created its operation, where OpenTelemetry is installed.
 *
 * A malformed `traceparent` leaves the context as it is. Its format is that of W3C Trace Context,
 * whatever propagator the application has registered.
 */
export function inTrace<T>(traceparent: string | undefined, run: () => T): T {
  const span = read(traceparent);
  if (!api || !span || !api.isSpanContextValid(span)) {
    return run();
  }
  return api.context.with(api.trace.setSpanContext(api.context.active(), span), run);
}

/** Return the span that a `traceparent` names, or undefined. */
function read(traceparent: string | undefined): object | undefined {
  const [, version, traceId, spanId, flags, more] = FORM.exec(traceparent ?? "") ?? [];
  if (version === undefined || version === "ff" || (version === "00" && more)) {
    return undefined;
  }
  return { traceId, spanId, traceFlags: Number.parseInt(flags ?? "0", 16), isRemote: true };
}
