/** The calls of callers about webhooks: signing secrets, deliveries, redelivery and tests. */
import { create } from "@bufbuild/protobuf";
import { Callers } from "./callers.js";
import { type CallOptions, requestId } from "./calls.js";
import { durationToMs, toDate } from "./convert.js";
import { UndecodableAnswer } from "./errors.js";
import {
  type DeliveryAttempt as AttemptMessage,
  type Delivery as DeliveryMessage,
  DeliveryStatus as DeliveryStatusNumber,
  ListDeliveriesRequestSchema,
  type SigningSecret as SecretMessage,
} from "./gen/milepost/v1/webhook_service_pb.js";
import { pages } from "./pages.js";

/** The status of a delivery. UNKNOWN is one of a newer service. */
export type DeliveryStatus = "UNKNOWN" | "PENDING" | "DELIVERED" | "EXHAUSTED" | "STOPPED";

/** A secret that signs your webhooks. It is not shown with the object: keep `value` safe. */
export class SigningSecret {
  readonly #value: string;
  readonly createTime: Date | undefined;
  /** Time at which it stops signing; only after a rotation. */
  readonly expireTime: Date | undefined;

  /** @internal Made from an answer. */
  constructor(message: SecretMessage) {
    this.#value = message.value;
    this.createTime = toDate(message.createTime);
    this.expireTime = toDate(message.expireTime);
  }

  /** The secret, `whsec_…`. */
  get value(): string {
    return this.#value;
  }
}

/** The secrets that sign your webhooks; for 24 hours after a rotation, both. */
export interface SigningSecrets {
  readonly current: SigningSecret;
  readonly previous: SigningSecret | undefined;
}

/** One attempt to send a webhook. */
export interface DeliveryAttempt {
  readonly number: number;
  readonly startTime: Date | undefined;
  readonly durationMs: number;
  readonly statusCode: number | undefined;
  readonly error: string | undefined;
}

/** One webhook, for one event of one operation. */
export interface Delivery {
  /** The `webhook-id` of every attempt. */
  readonly id: string;
  readonly operationId: string;
  readonly revision: number;
  readonly eventType: string;
  readonly callbackUrl: string;
  readonly status: DeliveryStatus;
  readonly createTime: Date | undefined;
  readonly nextAttemptTime: Date | undefined;
  readonly settleTime: Date | undefined;
  readonly attempts: readonly DeliveryAttempt[];
}

/** Which deliveries to list. */
export interface DeliveryOptions extends CallOptions {
  readonly operationId?: string | undefined;
  /** The statuses to include; all by default. */
  readonly statuses?: Iterable<Exclude<DeliveryStatus, "UNKNOWN">> | undefined;
  readonly pageSize?: number | undefined;
}

const STATUSES = {
  PENDING: DeliveryStatusNumber.PENDING,
  DELIVERED: DeliveryStatusNumber.DELIVERED,
  EXHAUSTED: DeliveryStatusNumber.EXHAUSTED,
  STOPPED: DeliveryStatusNumber.STOPPED,
} as const;
const NAMES: ReadonlyMap<number, DeliveryStatus> = new Map(
  Object.entries(STATUSES).map(([name, number]) => [number, name as DeliveryStatus]),
);
const MAX_PAGE_SIZE = 100;

/** The webhooks of a caller. `verifyWebhook` verifies them. */
export class Receivers extends Callers {
  /**
   * Return the secrets that sign your webhooks.
   *
   * @throws SigningSecretNotFound before the first create with a callback URL, or rotation.
   */
  async signingSecrets(options: CallOptions = {}): Promise<SigningSecrets> {
    const { webhooks } = this._calls;
    return secrets(await this._calls.send(webhooks.getSigningSecret, {}, options));
  }

  /** Replace the secret. The previous one signs too, for 24 hours. */
  async rotateSigningSecret(
    options: CallOptions & { readonly requestId?: string | undefined } = {},
  ): Promise<SigningSecrets> {
    const request = { requestId: requestId(options.requestId) };
    const { webhooks } = this._calls;
    return secrets(await this._calls.send(webhooks.rotateSigningSecret, request, options));
  }

  /**
   * Iterate over the deliveries of your webhooks, newest first, over all pages.
   *
   * A rate limit refuses the first page, and delays each of the others for up to 5 minutes.
   */
  async *deliveries(options: DeliveryOptions = {}): AsyncGenerator<Delivery, void, undefined> {
    const request = create(ListDeliveriesRequestSchema, {
      operationId: options.operationId,
      statuses: Array.from(options.statuses ?? [], (status) => STATUSES[status]),
      pageSize: options.pageSize ?? MAX_PAGE_SIZE,
    });
    const calls = this._calls;
    for await (const page of pages(calls, calls.webhooks.listDeliveries, request, options)) {
      for (const message of page.deliveries) {
        yield delivery(message);
      }
    }
  }

  /**
   * Send a settled delivery again.
   *
   * @throws DeliveryNotFound if you have no such delivery.
   */
  async redeliver(
    deliveryId: string,
    options: CallOptions & { readonly requestId?: string | undefined } = {},
  ): Promise<Delivery> {
    const request = { deliveryId, requestId: requestId(options.requestId) };
    const { webhooks } = this._calls;
    return delivery((await this._calls.send(webhooks.redeliverWebhook, request, options)).delivery);
  }

  /** Send one test webhook to a URL at once, and return the attempt. It is not tried again. */
  async sendTestWebhook(callbackUrl: string, options: CallOptions = {}): Promise<DeliveryAttempt> {
    const once = { ...options, isRepeatable: false };
    const { webhooks } = this._calls;
    const answer = await this._calls.send(webhooks.sendTestWebhook, { callbackUrl }, once);
    return attempt(present(answer.attempt));
  }
}

function secrets({ current, previous }: Secrets): SigningSecrets {
  return {
    current: new SigningSecret(present(current)),
    previous: previous === undefined ? undefined : new SigningSecret(previous),
  };
}

interface Secrets {
  readonly current?: SecretMessage | undefined;
  readonly previous?: SecretMessage | undefined;
}

function delivery(message: DeliveryMessage | undefined): Delivery {
  const found = present(message);
  return {
    id: found.id,
    operationId: found.operationId,
    revision: Number(found.revision),
    eventType: found.eventType,
    callbackUrl: found.callbackUrl,
    status: NAMES.get(found.status) ?? "UNKNOWN",
    createTime: toDate(found.createTime),
    nextAttemptTime: toDate(found.nextAttemptTime),
    settleTime: toDate(found.settleTime),
    attempts: found.attempts.map(attempt),
  };
}

function attempt(message: AttemptMessage): DeliveryAttempt {
  return {
    number: message.number,
    startTime: toDate(message.startTime),
    durationMs: message.duration === undefined ? 0 : durationToMs(message.duration),
    statusCode: message.statusCode,
    error: message.error,
  };
}

function present<Message>(message: Message | undefined): Message {
  if (message === undefined) {
    throw new UndecodableAnswer("the answer of the service lacks its content");
  }
  return message;
}
