/** The commands of the testee, each performed with the public client. */
import { readFileSync } from "node:fs";
import {
  type DeliveryOptions,
  type JsonMap,
  Milepost,
  type Operation,
  type OperationError,
  type SigningSecret,
  type SigningSecrets,
  type Status,
  verifyWebhook,
} from "../src/index.js";
import { bench } from "./bench.js";
import { Handles } from "./handles.js";
import { data, decode, encode, toOptions } from "./values.js";
import { problemOf, RemoteWorker, WORKERS, WORKS } from "./workers.js";

type Arguments = Readonly<Record<string, unknown>>;
type Command = (args: Arguments) => Promise<unknown>;

interface Connected {
  readonly milepost: Milepost;
  token: string | undefined;
}

const CLIENTS = new Handles<Connected>("client");
const STREAMS = new Handles<AsyncGenerator<unknown, void, undefined>>("stream");

const clientOf = (args: Arguments) => CLIENTS.get(args.client).milepost;
const idOf = (args: Arguments) => String(decode(args.operation_id));
const file = (path: unknown) => (path === undefined ? {} : readFileSync(String(path)));

/** Return the arguments that are options of the client. */
function optionsOf(args: Arguments, ...others: string[]) {
  const left = new Set(["id", "call", "client", "operation_id", ...others]);
  return toOptions(Object.fromEntries(Object.entries(args).filter(([name]) => !left.has(name))));
}

const stream = async (items: AsyncGenerator<unknown, void, undefined>) => ({
  stream: STREAMS.add(items),
});

async function connect(args: Arguments): Promise<unknown> {
  const { ca_file: ca, certificate_file: cert, key_file: key, token, api_key: apiKey } = args;
  const isTls = ca !== undefined || cert !== undefined;
  const connected: { token: string | undefined } = { token: token as string | undefined };
  const milepost = new Milepost({
    address: String(args.address),
    apiKey: apiKey as string | undefined,
    token: token === undefined ? undefined : async () => connected.token ?? "",
    insecure: args.insecure === true,
    deadlineMs: args.deadline === undefined ? undefined : Number(args.deadline) * 1000,
    tls: isTls
      ? {
          ...(ca === undefined ? {} : { ca: file(ca) as Buffer }),
          ...(cert === undefined ? {} : { cert: file(cert) as Buffer }),
          ...(key === undefined ? {} : { key: file(key) as Buffer }),
        }
      : undefined,
  });
  return { client: CLIENTS.add(Object.assign(connected, { milepost })) };
}

async function result(args: Arguments): Promise<unknown> {
  const found = await clientOf(args).result(idOf(args), optionsOf(args));
  return found === undefined ? {} : { result: data(found) };
}

async function claim(args: Arguments): Promise<unknown> {
  const functions = args.functions as string[];
  const operations = await clientOf(args).claim(functions, optionsOf(args, "functions"));
  return { operations: operations.map(encode) };
}

async function updateProgress(args: Arguments): Promise<unknown> {
  const fields = ["progress", "message", "checkpoint"];
  const report = Object.fromEntries(
    Object.entries(args)
      .filter(([name]) => fields.includes(name))
      .map(([name, value]) => [name, decode(value)]),
  );
  return encode(
    await clientOf(args).updateProgress(idOf(args), report, optionsOf(args, ...fields)),
  );
}

/** Return signing secrets, which do not show themselves. */
function secrets({ current, previous }: SigningSecrets): unknown {
  const plain = ({ value, createTime, expireTime }: SigningSecret) =>
    encode({ value, createTime, expireTime });
  return {
    current: plain(current),
    ...(previous === undefined ? {} : { previous: plain(previous) }),
  };
}

async function next(args: Arguments): Promise<unknown> {
  const item = await STREAMS.get(args.stream).next();
  return item.done === true ? { end: true } : { item: encode(item.value) };
}

async function workerNext(args: Arguments): Promise<unknown> {
  const held = await WORKERS.get(args.worker).next();
  const { operation, resumedFrom } = held.work;
  const checkpoint = resumedFrom === undefined ? {} : { checkpoint: data(resumedFrom) };
  return { work: WORKS.add(held), operation: encode(operation), ...checkpoint };
}

async function workProgress(args: Arguments): Promise<unknown> {
  const { work } = WORKS.get(args.work);
  const progress = decode(args.progress) as number | undefined;
  const message = decode(args.message) as string | undefined;
  if ("checkpoint" in args) {
    await work.checkpoint(decode(args.checkpoint), progress, message);
  } else {
    await work.progress(progress, message);
  }
  return {};
}

async function workState(args: Arguments): Promise<unknown> {
  const { signal, cancelRequested } = WORKS.get(args.work).work;
  const stopped = signal.aborted ? (signal.reason as Error).name : null;
  return { stopped, cancel_requested: cancelRequested.aborted };
}

/** Return the command that calls a method which returns an operation. */
function operation(
  call: (milepost: Milepost, id: string, args: Arguments) => Promise<Operation>,
): Command {
  return async (args) => encode(await call(clientOf(args), idOf(args), args));
}

export const COMMANDS: Readonly<Record<string, Command>> = {
  connect,
  set_token: async (args) => {
    CLIENTS.get(args.client).token = String(args.token);
    return {};
  },
  disconnect: async (args) => {
    await clientOf(args).close();
    return {};
  },
  create: async (args) => {
    const name = String(decode(args.function));
    return encode(await clientOf(args).create(name, optionsOf(args, "function")));
  },
  get: operation((milepost, id, args) => milepost.get(id, optionsOf(args))),
  wait: operation((milepost, id, args) => milepost.wait(id, optionsOf(args))),
  result,
  cancel: operation((milepost, id, args) => milepost.cancel(id, optionsOf(args))),
  delete: async (args) => {
    await clientOf(args).delete(idOf(args), optionsOf(args));
    return {};
  },
  list: async (args) => stream(clientOf(args).list(optionsOf(args) as { statuses?: Status[] })),
  events: async (args) => stream(clientOf(args).events(idOf(args), optionsOf(args))),
  watch: async (args) => stream(clientOf(args).watch(idOf(args), optionsOf(args))),
  signing_secrets: async (args) => secrets(await clientOf(args).signingSecrets()),
  rotate_signing_secret: async (args) =>
    secrets(await clientOf(args).rotateSigningSecret(optionsOf(args))),
  deliveries: async (args) =>
    stream(
      clientOf(args).deliveries({
        ...(optionsOf(args) as DeliveryOptions),
        ...(args.operation_id === undefined ? {} : { operationId: idOf(args) }),
      }),
    ),
  redeliver: async (args) =>
    encode(
      await clientOf(args).redeliver(String(args.delivery_id), optionsOf(args, "delivery_id")),
    ),
  send_test_webhook: async (args) =>
    encode(await clientOf(args).sendTestWebhook(String(args.callback_url))),
  next,
  close: async (args) => {
    await STREAMS.get(args.stream).return();
    return {};
  },
  claim,
  start: operation((milepost, id, args) => milepost.start(id, optionsOf(args))),
  update_progress: updateProgress,
  complete: operation((milepost, id, args) =>
    milepost.complete(id, decode(args.result), optionsOf(args, "result")),
  ),
  fail: operation((milepost, id, args) =>
    milepost.fail(id, decode(args.errors) as OperationError[], optionsOf(args, "errors")),
  ),
  release: operation((milepost, id, args) => milepost.release(id, optionsOf(args))),
  acknowledge_cancellation: operation((milepost, id, args) =>
    milepost.acknowledgeCancellation(id, optionsOf(args)),
  ),
  worker_start: async (args) => {
    const functions = args.functions as string[];
    const worker = new RemoteWorker(clientOf(args), functions, optionsOf(args, "functions"));
    return { worker: WORKERS.add(worker) };
  },
  worker_next: workerNext,
  work_progress: workProgress,
  work_state: workState,
  work_return: async (args) => {
    WORKS.get(args.work).end({ value: decode(args.result) });
    return {};
  },
  work_throw: async (args) => {
    const held = WORKS.get(args.work);
    held.end({ problem: problemOf(held.work, args) });
    return {};
  },
  worker_stop: async (args) => {
    await WORKERS.get(args.worker).stop();
    return {};
  },
  bench: async (args) => bench(args as unknown as Parameters<typeof bench>[0]),
  verify_webhook: async (args) => {
    const { body, headers, secrets } = args;
    return {
      content: verifyWebhook(
        String(body),
        headers as JsonMap as Record<string, string>,
        secrets as string[],
      ),
    };
  },
};
