/** The channel to the service: HTTP/2 with TLS, unless the service is on this machine. */
import { lookup } from "node:dns/promises";
import type { SecureClientSessionOptions } from "node:http2";
import { connect as connectSocket, type LookupFunction } from "node:net";
import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { type Address, baseUrl, isLoopback, isName } from "./address.js";
import { clock, sleep } from "./backoff.js";

/** The trust of a TLS connection, in PEM. Everything is optional: by default, the roots of Node. */
export interface TlsOptions {
  /** The authorities that sign the certificate of the service. */
  readonly ca?: string | Buffer | readonly (string | Buffer)[];
  /** The certificate of this client, with its chain. */
  readonly cert?: string | Buffer;
  /** The key of that certificate. */
  readonly key?: string | Buffer;
  /** The name in the certificate of the service, if it differs from the address. */
  readonly serverName?: string;
}

/** The service admits a ping every 10 s during calls. A dead connection is found within 70 s. */
const PING_INTERVAL_MS = 60_000;
const PING_TIMEOUT_MS = 10_000;
/** Pause between two attempts to connect to a replica that does not answer. */
const RECONNECT_PAUSE_MS = 1_000;
/** Time after which the addresses of a name are resolved again. */
const RESOLVE_INTERVAL_MS = 30_000;
/** Memory of one connection, in MB: many results of 1 MiB may be in flight. */
const MAX_SESSION_MEMORY_MB = 512;
/** Flow-control window of one stream: a claim or a page has at most 3 MiB. */
const WINDOW_BYTES = 4 << 20;

type Resolve = (host: string) => Promise<readonly { address: string; family: number }[]>;

interface Replica {
  readonly key: string;
  readonly manager: Http2SessionManager;
  readonly transport: Transport;
  connectTime: number;
}

/** A call of a client that was closed. The service has nothing to do with it. */
export class ClientClosed extends Error {
  constructor() {
    super("the client was closed");
    this.name = "ClientClosed";
  }
}

/** Connections to every replica behind one address, each opened when it is first needed. */
export class Channel implements Transport {
  readonly #address: Address;
  readonly #isEncrypted: boolean;
  readonly #options: SecureClientSessionOptions;
  readonly #interceptors: Interceptor[];
  readonly #lookUp: Resolve;
  #replicas: Replica[] = [];
  #resolveTime = Number.NEGATIVE_INFINITY;
  #next = 0;
  #isClosed = false;

  constructor(
    address: Address,
    options: {
      tls?: TlsOptions | undefined;
      insecure: boolean;
      interceptors: Interceptor[];
      /** Returns the addresses of a name; those of the system by default. */
      resolve?: Resolve;
    },
  ) {
    this.#address = address;
    this.#isEncrypted = options.tls !== undefined || !(options.insecure || isLoopback(address));
    this.#options = sessionOptions(address, options.tls);
    this.#interceptors = options.interceptors;
    this.#lookUp = options.resolve ?? ((host) => lookup(host, { all: true }));
    if (!isName(address) || (address.kind === "host" && address.host === "localhost")) {
      this.#replicas = [this.#replica("", undefined)];
      this.#resolveTime = Number.POSITIVE_INFINITY;
    }
  }

  /** True if the credential travels encrypted. */
  get isEncrypted(): boolean {
    return this.#isEncrypted;
  }

  unary: Transport["unary"] = async (method, signal, timeoutMs, header, input, values) => {
    const transport = await this.#pick(signal, timeoutMs);
    return transport.unary(method, signal, timeoutMs, header, input, values);
  };

  stream: Transport["stream"] = async (method, signal, timeoutMs, header, input, values) => {
    const transport = await this.#pick(signal, timeoutMs);
    return transport.stream(method, signal, timeoutMs, header, input, values);
  };

  /** Close all connections. Calls in flight fail. */
  close(): void {
    this.#isClosed = true;
    for (const replica of this.#replicas) {
      replica.manager.abort(new Error("the client was closed"));
    }
  }

  async #pick(signal?: AbortSignal, timeoutMs?: number): Promise<Transport> {
    if (this.#isClosed) {
      throw new ClientClosed();
    }
    const only = this.#replicas[0];
    if (only !== undefined && this.#resolveTime === Number.POSITIVE_INFINITY) {
      return only.transport;
    }
    const late = new AbortController();
    const limitMs = timeoutMs ?? Number.POSITIVE_INFINITY;
    const end = sleep(limitMs, AbortSignal.any([late.signal, ...(signal ? [signal] : [])]));
    end.catch(() => undefined);
    const timeout = end.then((): never => {
      throw new ConnectError("no replica could be reached in time", Code.DeadlineExceeded);
    });
    timeout.catch(() => undefined);
    try {
      return await Promise.race([this.#pickReady(), timeout]);
    } finally {
      late.abort();
    }
  }

  /** Return the next replica that is connected; connect to all of them, and wait if none is. */
  async #pickReady(): Promise<Transport> {
    if (clock() - this.#resolveTime > RESOLVE_INTERVAL_MS || this.#replicas.length === 0) {
      await this.#resolve();
    }
    const attempts = this.#replicas.filter((replica) => !isReady(replica)).map(connect);
    if (attempts.length === this.#replicas.length) {
      await Promise.any(attempts).catch(() => this.#resolveAgain());
    } else {
      for (const attempt of attempts) {
        attempt.catch(() => undefined);
      }
    }
    const ready = this.#replicas.filter(isReady);
    const candidates = ready.length > 0 ? ready : this.#replicas;
    const picked = candidates[this.#next++ % candidates.length];
    if (picked === undefined) {
      throw new ConnectError("the name of the service has no address", Code.Unavailable);
    }
    return picked.transport;
  }

  #resolveAgain(): void {
    this.#resolveTime = Number.NEGATIVE_INFINITY;
  }

  /** Look the name up, keep the connections to its addresses, and let the others end. */
  async #resolve(): Promise<void> {
    if (this.#address.kind !== "host") {
      return;
    }
    let found: Awaited<ReturnType<Resolve>>;
    try {
      found = await this.#lookUp(this.#address.host);
    } catch (error) {
      if (this.#replicas.length === 0) {
        throw error;
      }
      return; // the connections that are open still serve
    }
    this.#resolveTime = clock();
    const present = new Map(this.#replicas.map((replica) => [replica.key, replica]));
    this.#replicas = found.map(
      ({ address, family }) =>
        present.get(address) ?? this.#replica(address, fixed(address, family)),
    );
  }

  #replica(key: string, find: LookupFunction | undefined): Replica {
    const url = baseUrl(this.#address, this.#isEncrypted);
    const options = find === undefined ? this.#options : { ...this.#options, lookup: find };
    const manager = new Http2SessionManager(
      url,
      { pingIntervalMs: PING_INTERVAL_MS, pingTimeoutMs: PING_TIMEOUT_MS },
      options,
    );
    const transport = createGrpcTransport({
      baseUrl: url,
      sessionManager: manager,
      interceptors: this.#interceptors,
    });
    return { key, manager, transport, connectTime: Number.NEGATIVE_INFINITY };
  }
}

function sessionOptions(address: Address, tls: TlsOptions | undefined): SecureClientSessionOptions {
  return {
    maxSessionMemory: MAX_SESSION_MEMORY_MB,
    settings: { initialWindowSize: WINDOW_BYTES, enablePush: false },
    ...(tls?.ca === undefined ? {} : { ca: Array.isArray(tls.ca) ? [...tls.ca] : tls.ca }),
    ...(tls?.cert === undefined ? {} : { cert: tls.cert }),
    ...(tls?.key === undefined ? {} : { key: tls.key }),
    ...(tls?.serverName === undefined ? {} : { servername: tls.serverName }),
    ...(address.kind === "unix" ? { createConnection: () => connectSocket(address.path) } : {}),
  } as SecureClientSessionOptions;
}

/** Return a look-up that knows one address, so that a connection goes to one replica. */
function fixed(address: string, family: number): LookupFunction {
  return (_host, options, found) => {
    if (options.all === true) {
      found(null, [{ address, family }]);
    } else {
      found(null, address, family);
    }
  };
}

function isReady({ manager }: Replica): boolean {
  return ["open", "idle", "verifying"].includes(manager.state());
}

/** Connect to the replica, unless an attempt failed just now; reject if that fails. */
async function connect(replica: Replica): Promise<void> {
  if (replica.manager.state() === "error") {
    if (clock() - replica.connectTime < RECONNECT_PAUSE_MS) {
      throw replica.manager.error();
    }
  }
  replica.connectTime = clock();
  if ((await replica.manager.connect()) === "error") {
    throw replica.manager.error();
  }
}
