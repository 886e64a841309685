/** The connection under the whole client: an address, a credential, and a channel. */
import { parseAddress } from "./address.js";
import { sleep } from "./backoff.js";
import { Calls, type CredentialSource, identify } from "./calls.js";
import { Channel, type TlsOptions } from "./channel.js";
import { Unauthenticated, Unavailable } from "./errors.js";

const DEADLINE_MS = 10_000;
const WORD = /^[\x21-\x7e]+$/;

/** How to reach the service, and who calls. */
export interface MilepostOptions {
  /** The address of the service, such as `127.0.0.1:7450` or `milepost.example.com:443`. */
  readonly address: string;
  /** An API key. It is sent with every call, and never shown. */
  readonly apiKey?: string | undefined;
  /**
   * A source of tokens (JWT) of an issuer that the service trusts. It is asked before every try of
   * every call, so it should keep a token until that is about to expire.
   */
  readonly token?: (() => string | Promise<string>) | undefined;
  /**
   * The trust of the TLS connection, for an authority or a client certificate of your own. By
   * default TLS with the roots of Node, and no encryption to the loopback interface.
   */
  readonly tls?: TlsOptions | undefined;
  /** Allow an unencrypted connection to another machine, which exposes the credential. */
  readonly insecure?: boolean | undefined;
  /** The deadline of one call, all its tries together; 10 s by default. */
  readonly deadlineMs?: number | undefined;
}

/** A connection to a Milepost service. It opens with the first call. */
export class Connection implements AsyncDisposable {
  /** The address of the service. */
  readonly address: string;
  readonly #channel: Channel;
  /** @internal The calls, for the parts of this package. */
  readonly _calls: Calls;

  /** @throws TypeError if the address, the credential or the combination of options is invalid. */
  constructor(options: MilepostOptions) {
    const { address, tls, insecure = false, deadlineMs = DEADLINE_MS } = options;
    if (tls !== undefined && insecure) {
      throw new TypeError("tls and insecure exclude each other");
    }
    if ((tls?.cert === undefined) !== (tls?.key === undefined)) {
      throw new TypeError("a client certificate and its key need each other");
    }
    if (!(deadlineMs > 0)) {
      throw new TypeError("deadlineMs must be a positive number of milliseconds");
    }
    this.address = address;
    this.#channel = new Channel(parseAddress(address), {
      tls,
      insecure,
      interceptors: [identify(credentialSource(options, deadlineMs))],
    });
    this._calls = new Calls(this.#channel, deadlineMs);
  }

  /** Close the connection. Calls in flight fail. A closed client stays closed. */
  async close(): Promise<void> {
    this.#channel.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function credentialSource({ apiKey, token }: MilepostOptions, timeoutMs: number): CredentialSource {
  if (apiKey !== undefined && token !== undefined) {
    throw new TypeError("apiKey and token exclude each other");
  }
  if (apiKey !== undefined && !WORD.test(apiKey)) {
    throw new TypeError(
      "an API key is one word of ASCII: this one is empty, or has a space or a line end",
    );
  }
  return token === undefined ? async () => apiKey : (signal) => ask(token, signal, timeoutMs);
}

/**
 * Return a token. A source that fails, or takes too long, is as temporary as a service that does
 * not answer.
 */
async function ask(
  source: () => string | Promise<string>,
  signal: AbortSignal,
  timeoutMs: number,
): Promise<string> {
  let token: unknown;
  try {
    token = await within(source(), signal, timeoutMs);
  } catch (cause) {
    const message = "the token source failed: no call was made";
    throw new Unavailable(message, { code: "UNAVAILABLE", cause });
  }
  if (typeof token !== "string" || !WORD.test(token)) {
    throw new Unauthenticated("the token source returned something else than one word of ASCII");
  }
  return token;
}

/** Return the result of a promise, unless the signal or the time ends the wait for it. */
async function within<T>(
  result: T | Promise<T>,
  signal: AbortSignal,
  timeoutMs: number,
): Promise<T> {
  const answered = new AbortController();
  const ended = sleep(timeoutMs, AbortSignal.any([signal, answered.signal])).then(() => {
    throw new Error(`there was no token within ${timeoutMs} ms`);
  });
  ended.catch(() => undefined); // the result may have come first
  try {
    return await Promise.race([result, ended]);
  } finally {
    answered.abort();
  }
}
