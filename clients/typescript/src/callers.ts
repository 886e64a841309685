/** The calls of callers: create, read, await, watch, cancel and delete an operation. */
import { create } from "@bufbuild/protobuf";
import { type CallOptions, requestId, type WriteOptions } from "./calls.js";
import { Connection } from "./connection.js";
import { toDuration, toTimestamp } from "./convert.js";
import { noResult } from "./errors.js";
import { OperationView } from "./gen/milepost/v1/operation_pb.js";
import {
  ListEventsRequestSchema,
  ListOperationsRequestSchema,
  UniqueKeyPolicy,
} from "./gen/milepost/v1/operation_service_pb.js";
import { type JsonMap, toStruct } from "./json.js";
import {
  fromEvent,
  fromOperation,
  type Operation,
  type OperationEvent,
  type RetryPolicy,
  type Status,
  toStatuses,
} from "./operation.js";
import { pages } from "./pages.js";
import { untilTerminal } from "./wait.js";
import { changes } from "./watch.js";

/** What a create may say beside the function. */
export interface CreateOptions extends CallOptions {
  /** The version of the function. */
  readonly version?: string | undefined;
  /** Data of your own, kept with the operation. */
  readonly metadata?: JsonMap | undefined;
  /** The time to keep the operation; 24 hours by default. */
  readonly ttlMs?: number | undefined;
  /** The suggested pause between two reads; 5 seconds by default. */
  readonly retryAfterMs?: number | undefined;
  /** The number of attempts that may fail; 3 by default. */
  readonly maxAttempts?: number | undefined;
  /** The pauses between the attempts. */
  readonly retryPolicy?: RetryPolicy | undefined;
  /** The time before which no worker gets the operation. */
  readonly scheduleTime?: Date | undefined;
  /** 0 to 9; a higher one is claimed first among your operations. 5 by default. */
  readonly priority?: number | undefined;
  /** The key that at most one active operation of yours has. */
  readonly uniqueKey?: string | undefined;
  /** Return the active operation with the unique key (`join`, the default), or refuse the create. */
  readonly uniqueKeyPolicy?: "join" | "refuse" | undefined;
  /** The time that the operation may wait for a worker. */
  readonly queueTimeoutMs?: number | undefined;
  /** The time that one attempt may take. */
  readonly runTimeoutMs?: number | undefined;
  /** The URL that receives webhooks. */
  readonly callbackUrl?: string | undefined;
  /** The events to send; by default every terminal status. */
  readonly callbackEvents?: readonly string[] | undefined;
  /** The request, in your own terms, that led to this operation. */
  readonly originalRequestId?: string | undefined;
  /** Makes the call repeatable, also over a restart of your program; random by default. */
  readonly requestId?: string | undefined;
}

/** How long to wait. */
export interface WaitOptions extends CallOptions {
  /** The time to wait; without it, the wait is unbounded. */
  readonly timeoutMs?: number | undefined;
}

/** Which operations to list. */
export interface ListOptions extends CallOptions {
  /** The statuses to include; all by default. */
  readonly statuses?: Iterable<Status> | undefined;
  /** The function of the operations. */
  readonly function?: string | undefined;
  /** The earliest time of creation. */
  readonly createdFrom?: Date | undefined;
  /** The time before which they were created. */
  readonly createdBefore?: Date | undefined;
  /** The owner, which only an admin may name; for an admin, absent means all. */
  readonly owner?: string | undefined;
  /** Include `metadata`, `result`, `errors` and `checkpoint`, which may be large. */
  readonly full?: boolean | undefined;
  /** The number of operations of one call, 1 to 100. */
  readonly pageSize?: number | undefined;
}

/** Where a watch begins. */
export interface WatchOptions extends CallOptions {
  /**
   * The last revision that you know. The changes of status since then come one by one, from the
   * stored events: without progress, worker and lease.
   */
  readonly afterRevision?: number | bigint | undefined;
}

/** How to cancel. */
export interface CancelOptions extends WriteOptions {
  /** The reason, as a text. */
  readonly reason?: string | undefined;
  /** The time that the worker has to end the operation by itself; by default none. */
  readonly graceMs?: number | undefined;
}

const UNIQUE_KEY_POLICIES = {
  join: UniqueKeyPolicy.JOIN,
  refuse: UniqueKeyPolicy.REFUSE,
} as const;

const MAX_PAGE_SIZE = 100;

/**
 * The calls of a caller. Each may also throw the errors that concern no single operation:
 * `InvalidRequest`, `Unauthenticated`, `PermissionDenied`, `LimitReached`, `Unavailable`,
 * `DeadlineExceeded` and `InternalError`.
 */
export class Callers extends Connection {
  /**
   * Create an operation, or return the one that an earlier call with this `requestId` made:
   * then `replayed` is true. If `joined` is true, an active operation has the `uniqueKey`.
   *
   * @throws RequestIdReused if the `requestId` created an operation with other content.
   * @throws UniqueKeyTaken if the `uniqueKeyPolicy` is to refuse the create.
   * @throws QuotaExceeded if too many of your operations are active.
   * @throws WebhooksNotConfigured if this service sends no webhooks.
   */
  async create(functionName: string, options: CreateOptions = {}): Promise<Operation> {
    const request = {
      function: functionName,
      version: options.version,
      metadata: options.metadata === undefined ? undefined : toStruct(options.metadata, "metadata"),
      ttl: toDuration(options.ttlMs, "ttlMs"),
      retryAfter: toDuration(options.retryAfterMs, "retryAfterMs"),
      maxAttempts: options.maxAttempts,
      retryPolicy: toRetryPolicy(options.retryPolicy),
      scheduleTime: toTimestamp(options.scheduleTime, "scheduleTime"),
      priority: options.priority,
      uniqueKey: options.uniqueKey,
      uniqueKeyPolicy: UNIQUE_KEY_POLICIES[options.uniqueKeyPolicy ?? "join"],
      queueTimeout: toDuration(options.queueTimeoutMs, "queueTimeoutMs"),
      runTimeout: toDuration(options.runTimeoutMs, "runTimeoutMs"),
      callbackUrl: options.callbackUrl,
      callbackEvents: [...(options.callbackEvents ?? [])],
      originalRequestId: options.originalRequestId,
      requestId: requestId(options.requestId),
    };
    const answer = await this._calls.send(this._calls.operations.createOperation, request, options);
    return fromOperation(answer.operation, answer);
  }

  /**
   * Return the present state of the operation.
   *
   * @throws OperationNotFound if it does not exist, or is not visible to you.
   */
  async get(operationId: string, options: CallOptions = {}): Promise<Operation> {
    const answer = await this._calls.send(
      this._calls.operations.getOperation,
      { operationId },
      options,
    );
    return fromOperation(answer.operation);
  }

  /**
   * Wait until the operation is terminal, or the timeout has passed, and return its state at that
   * time; check its status. The last call may take a deadline longer than the timeout.
   *
   * @throws OperationNotFound if it does not exist, is not visible to you, or was removed.
   */
  async wait(operationId: string, options: WaitOptions = {}): Promise<Operation> {
    const wait = async (waitingMs: number) => {
      const timeout = toDuration(waitingMs, "timeoutMs");
      const answer = await this._calls.send(
        this._calls.operations.waitOperation,
        { operationId, timeout },
        { ...options, waitingMs },
      );
      return fromOperation(answer.operation);
    };
    const { timeoutMs = Number.POSITIVE_INFINITY, signal } = options;
    if (Number.isNaN(timeoutMs)) {
      throw new RangeError("timeoutMs is not a number of milliseconds");
    }
    return untilTerminal(wait, timeoutMs, signal);
  }

  /**
   * Wait for the end of the operation and return its result.
   *
   * JSON is returned as plain values, any other message as the `google.protobuf.Any` that holds
   * it. Null is a result; undefined means no result.
   *
   * @throws OperationFailed if it failed; `errors` holds the reasons.
   * @throws OperationCancelled if it was cancelled.
   * @throws StillRunning if it had not ended when the timeout passed.
   * @throws OperationNotFound if it does not exist, is not visible to you, or was removed.
   */
  async result<Result = unknown>(operationId: string, options: WaitOptions = {}): Promise<Result> {
    const operation = await this.wait(operationId, options);
    if (operation.status !== "COMPLETED") {
      throw noResult(operation);
    }
    return operation.result as Result;
  }

  /**
   * Iterate over the changes of the operation, up to its end.
   *
   * The first item is the present state, if its revision is higher than `afterRevision`. Then every
   * change of status follows exactly once, in the order of revisions, and between them the newest
   * progress. A lost connection, or a service that is unavailable for a while, only delays: the
   * next connection continues after the last revision.
   *
   * @throws OperationNotFound if it does not exist, is not visible to you, or was removed.
   * @throws RevisionAhead if the operation has not reached `afterRevision`, or has no longer.
   * @throws Unavailable if the service could not be reached, or was unavailable for 5 minutes.
   */
  watch(
    operationId: string,
    options: WatchOptions = {},
  ): AsyncGenerator<Operation, void, undefined> {
    return changes(this._calls, operationId, {
      afterRevision: BigInt(options.afterRevision ?? 0),
      signal: options.signal,
      deadlineMs: options.deadlineMs ?? this._calls.deadlineMs,
    });
  }

  /**
   * Cancel the operation. Without a grace, it can no longer be completed.
   *
   * Its worker is notified on its progress stream, or by the refusal of its next write. With a
   * grace, the worker is asked to end the operation by itself, and cut off at the end of the grace.
   *
   * @throws IllegalTransition if it has ended already.
   * @throws RevisionMismatch if its revision is not `expectedRevision`.
   * @throws OperationNotFound if it does not exist, or is not visible to you.
   */
  async cancel(operationId: string, options: CancelOptions = {}): Promise<Operation> {
    const request = {
      operationId,
      reason: options.reason,
      grace: toDuration(options.graceMs, "graceMs"),
      ...preconditions(options),
    };
    const answer = await this._calls.send(this._calls.operations.cancelOperation, request, options);
    return fromOperation(answer.operation, answer);
  }

  /**
   * Delete an ended operation, with its result.
   *
   * @throws IllegalTransition if it has not ended.
   * @throws RevisionMismatch if its revision is not `expectedRevision`.
   * @throws OperationNotFound if it does not exist, or is not visible to you.
   */
  async delete(operationId: string, options: WriteOptions = {}): Promise<void> {
    const request = { operationId, ...preconditions(options) };
    await this._calls.send(this._calls.operations.deleteOperation, request, options);
  }

  /**
   * Iterate over your operations that match all options, newest first, over all pages.
   *
   * A rate limit refuses the first page, and delays each of the others for up to 5 minutes.
   */
  async *list(options: ListOptions = {}): AsyncGenerator<Operation, void, undefined> {
    const request = create(ListOperationsRequestSchema, {
      statuses: toStatuses(options.statuses ?? []),
      function: options.function,
      createTimeFrom: toTimestamp(options.createdFrom, "createdFrom"),
      createTimeTo: toTimestamp(options.createdBefore, "createdBefore"),
      owner: options.owner,
      view: options.full === true ? OperationView.FULL : OperationView.BASIC,
      pageSize: options.pageSize ?? MAX_PAGE_SIZE,
    });
    const calls = this._calls;
    for await (const page of pages(calls, calls.operations.listOperations, request, options)) {
      for (const operation of page.operations) {
        yield fromOperation(operation);
      }
    }
  }

  /**
   * Iterate over the events of the operation, oldest first, over all pages: its changes of status
   * and the requests to cancel it, with the errors of every attempt.
   *
   * A rate limit refuses the first page, and delays each of the others for up to 5 minutes.
   *
   * @throws OperationNotFound if it does not exist, or is not visible to you.
   */
  async *events(
    operationId: string,
    options: CallOptions & { readonly pageSize?: number | undefined } = {},
  ): AsyncGenerator<OperationEvent, void, undefined> {
    const pageSize = options.pageSize ?? MAX_PAGE_SIZE;
    const request = create(ListEventsRequestSchema, { operationId, pageSize });
    const calls = this._calls;
    for await (const page of pages(calls, calls.operations.listEvents, request, options)) {
      for (const event of page.events) {
        yield fromEvent(event);
      }
    }
  }
}

/** Return the fields that make a change repeatable and conditional. */
export function preconditions(options: WriteOptions) {
  const { expectedRevision } = options;
  return {
    requestId: requestId(options.requestId),
    expectedRevision: expectedRevision === undefined ? undefined : BigInt(expectedRevision),
  };
}

function toRetryPolicy(policy: RetryPolicy | undefined) {
  if (policy === undefined) {
    return undefined;
  }
  return {
    initialBackoff: toDuration(policy.initialBackoffMs, "initialBackoffMs"),
    backoffMultiplier: policy.backoffMultiplier,
    maxBackoff: toDuration(policy.maxBackoffMs, "maxBackoffMs"),
  };
}
