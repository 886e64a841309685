/** Calls: each with a credential, a deadline and a requestId, tried again while that is safe. */
import { randomUUID } from "node:crypto";
import {
  type Client,
  createClient,
  type Interceptor,
  type CallOptions as TransportOptions,
} from "@connectrpc/connect";
import { Backoff, clock, sleep } from "./backoff.js";
import { type Channel, ClientClosed } from "./channel.js";
import { isDisruption } from "./disruption.js";
import { type MilepostError, Unavailable } from "./errors.js";
import { OperationService } from "./gen/milepost/v1/operation_service_pb.js";
import { WebhookService } from "./gen/milepost/v1/webhook_service_pb.js";
import { WorkerService } from "./gen/milepost/v1/worker_service_pb.js";
import { requireWellFormed } from "./json.js";
import { rebuild } from "./refusal.js";
import { traceHeaders } from "./tracing.js";
import { VERSION } from "./version.js";

/** The longest timeout of gRPC in milliseconds, which have 8 digits. */
const MAX_TIMEOUT_MS = 99_999_999;

/** What every call takes. */
export interface CallOptions {
  /** Ends the call: it throws the reason of the signal. A change may have happened. */
  readonly signal?: AbortSignal | undefined;
  /** The deadline of the call, all its tries together; that of the client by default. */
  readonly deadlineMs?: number | undefined;
}

/** What a call takes that changes something. */
export interface WriteOptions extends CallOptions {
  /** Makes the call repeatable, also over a restart of your program; random by default. */
  readonly requestId?: string | undefined;
  /** Change the operation only if it still has this revision. */
  readonly expectedRevision?: number | bigint | undefined;
}

/** Returns the credential of the next call, which ends with the signal. */
export type CredentialSource = (signal: AbortSignal) => Promise<string | undefined>;

/** The services behind one channel, and the calls to them. */
export class Calls {
  readonly operations: Client<typeof OperationService>;
  readonly webhooks: Client<typeof WebhookService>;
  readonly workers: Client<typeof WorkerService>;
  readonly deadlineMs: number;

  constructor(channel: Channel, deadlineMs: number) {
    this.operations = createClient(OperationService, channel);
    this.webhooks = createClient(WebhookService, channel);
    this.workers = createClient(WorkerService, channel);
    this.deadlineMs = deadlineMs;
  }

  /**
   * Return the answer to the request.
   *
   * While the service is unavailable, or calls are broken on their way to it, the request is sent
   * again: after the pause that the service asks for, and a growing one. The deadline bounds all
   * tries together. That is safe, because a request reads, claims or has a requestId,
   * unless it says that it is not repeatable.
   *
   * @throws MilepostError if the service refused, or did not answer in time, or its answer cannot
   *   be decoded.
   */
  async send<Request, Response>(
    method: (request: Request, options: TransportOptions) => Promise<Response>,
    request: Request,
    options: CallOptions & { readonly waitingMs?: number; readonly isRepeatable?: boolean } = {},
  ): Promise<Response> {
    const { signal, deadlineMs = this.deadlineMs, waitingMs = 0, isRepeatable = true } = options;
    requireWellFormed(request, "request");
    const end = clock() + deadlineMs + waitingMs;
    if (Number.isNaN(end)) {
      throw new TypeError("a deadline is a number of milliseconds");
    }
    const backoff = new Backoff();
    for (;;) {
      signal?.throwIfAborted();
      let pauseMs: number;
      try {
        // The transport takes a deadline of 0 for none, and one beyond its timers for 1 ms.
        const timeoutMs = Math.min(MAX_TIMEOUT_MS, Math.max(1, Math.ceil(end - clock())));
        return await method(request, signal === undefined ? { timeoutMs } : { timeoutMs, signal });
      } catch (failure) {
        signal?.throwIfAborted();
        if (failure instanceof ClientClosed) {
          throw failure;
        }
        const error = rebuild(failure);
        pauseMs = backoff.pauseMs(error);
        if (!(isRepeatable && isPassing(error)) || clock() + pauseMs >= end) {
          throw error;
        }
      }
      await sleep(pauseMs, signal);
    }
  }
}

/** Return the given requestId, or a new one. */
export function requestId(given: string | undefined): string {
  return given ?? randomUUID();
}

/** Return the interceptor that adds to every call what this client is, and who calls. */
export function identify(credential: CredentialSource): Interceptor {
  return (next) => async (request) => {
    request.header.set("user-agent", `milepost-client-typescript/${VERSION}`);
    for (const [name, value] of Object.entries(traceHeaders())) {
      request.header.set(name, value);
    }
    const secret = await credential(request.signal);
    if (secret !== undefined) {
      request.header.set("authorization", `Bearer ${secret}`);
    }
    return next(request);
  };
}

/** Return true if another try may find the service. */
function isPassing(error: MilepostError): boolean {
  return error.code === "UNAVAILABLE" || error instanceof Unavailable || isDisruption(error);
}
