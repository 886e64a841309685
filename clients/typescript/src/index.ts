/**
 * The TypeScript client of Milepost, a service that tracks long-running operations.
 *
 * `Milepost` makes the calls, and a `Worker` does the work. The errors form one tree, drawn in
 * `errors.ts`.
 */
export type {
  CancelOptions,
  CreateOptions,
  ListOptions,
  WaitOptions,
  WatchOptions,
} from "./callers.js";
export type { CallOptions, WriteOptions } from "./calls.js";
export { ClientClosed, type TlsOptions } from "./channel.js";
export {
  type ClaimOptions,
  type FailOptions,
  Milepost,
  type ProgressReport,
  type ReleaseOptions,
  type StartOptions,
  type WorkOptions,
} from "./client.js";
export type { MilepostOptions } from "./connection.js";
export * from "./errors.js";
export type { Handler } from "./execution.js";
export {
  CancelRequested,
  type FailureFacts,
  PermanentFailure,
  RetryLater,
  WorkerStopped,
} from "./failure.js";
export { type Json, type JsonMap, NotJson } from "./json.js";
export type { Logger } from "./logger.js";
export {
  isTerminal,
  type NextStep,
  type Operation,
  type OperationError,
  type OperationEvent,
  type RetryPolicy,
  type Status,
} from "./operation.js";
export type {
  Delivery,
  DeliveryAttempt,
  DeliveryOptions,
  DeliveryStatus,
  SigningSecret,
  SigningSecrets,
} from "./receivers.js";
export { VERSION } from "./version.js";
export {
  NotVerified,
  verifyWebhook,
  type WebhookContent,
  type WebhookHeaders,
} from "./webhooks.js";
export type { Work } from "./work.js";
export { Worker, type WorkerOptions } from "./worker.js";
