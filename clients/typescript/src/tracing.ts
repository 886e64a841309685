/** The context of OpenTelemetry, passed on with every call where its API is installed. */
import { createRequire } from "node:module";

interface Api {
  readonly context: { active(): unknown };
  readonly propagation: { inject(context: unknown, carrier: Record<string, string>): void };
}

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
