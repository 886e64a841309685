/** The verification of webhooks: that a request comes from Milepost, and is fresh. */
import { Webhook, WebhookVerificationError } from "standardwebhooks";

/** The request is not a fresh webhook of this secret: answer it with 400 or 401. */
export class NotVerified extends Error {
  override get name(): string {
    return "NotVerified";
  }
}

/** The content of a webhook of Milepost. Receivers must accept fields and types that are new. */
export interface WebhookContent {
  readonly type: string;
  readonly timestamp: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Headers as `node:http` gives them, or as the Fetch API does. */
export type WebhookHeaders =
  | Headers
  | Readonly<Record<string, string | readonly string[] | undefined>>;

/**
 * Verify the signature and the time of a webhook, and return its content.
 *
 * @param body The body, exactly as it was received: not parsed and written again.
 * @param headers The headers, their names in any case.
 * @param secrets A signing secret (`whsec_…`), or several during a rotation.
 * @throws NotVerified if the request must not be trusted.
 * @throws TypeError if there is no secret, or one is malformed.
 */
export function verifyWebhook(
  body: string | Uint8Array,
  headers: WebhookHeaders,
  secrets: string | readonly string[],
): WebhookContent {
  const all = typeof secrets === "string" ? [secrets] : secrets;
  const payload = typeof body === "string" ? body : Buffer.from(body);
  const plain = plainHeaders(headers);
  let refusal: unknown = new TypeError("a webhook is verified with at least one secret");
  for (const verifier of all.map(verifierOf)) {
    try {
      return verifier.verify(payload, plain) as WebhookContent;
    } catch (error) {
      refusal = notVerified(error);
    }
  }
  throw refusal;
}

function notVerified(error: unknown): unknown {
  const isRefusal = error instanceof WebhookVerificationError || error instanceof SyntaxError;
  return isRefusal ? new NotVerified(error.message, { cause: error }) : error;
}

function verifierOf(secret: string): Webhook {
  try {
    return new Webhook(secret);
  } catch (cause) {
    throw new TypeError("a secret is whsec_ and base64", { cause });
  }
}

function plainHeaders(headers: WebhookHeaders): Record<string, string> {
  const entries = headers instanceof Headers ? [...headers] : Object.entries(headers);
  return Object.fromEntries(
    entries
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [name.toLowerCase(), String(value)]),
  );
}
