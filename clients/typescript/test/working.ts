/** A service with a caller and a worker, for all tests of one file. */
import { randomUUID } from "node:crypto";
import { after, before } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import type * as client from "../src/index.js";
import {
  type Handler,
  type Logger,
  Milepost,
  type Operation,
  type Work,
  Worker,
} from "../src/index.js";
import { Service } from "./service.js";

/** The id of no operation. */
export const ABSENT = "op_000000000000000000000000";
/** The retry policy of tests that do not wait. */
export const AT_ONCE = { retryPolicy: { initialBackoffMs: 1 } };
export const SILENT: Logger = {
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

export let service: Service;
export let caller: Milepost;
export let milepost: Milepost;

before(async () => {
  service = await Service.start();
  caller = new Milepost({ address: service.address, apiKey: await service.key() });
  milepost = new Milepost({ address: service.address, apiKey: await service.workerKey() });
});
after(async () => {
  await caller?.close();
  await milepost?.close();
  await service?.[Symbol.asyncDispose]();
});

/** Return a name of a function that no other test has. */
export const aFunction = () => `test.${randomUUID()}`;

/** Run a worker with one handler while the function runs. */
export async function working<Value>(
  handler: Handler,
  use: (functionName: string, worker: Worker) => Promise<Value>,
  options: client.WorkerOptions & { milepost?: Milepost } = {},
): Promise<Value> {
  const name = aFunction();
  const worker = new Worker(
    options.milepost ?? milepost,
    { [name]: handler },
    { log: SILENT, graceMs: 5_000, ...options },
  );
  const running = worker.run();
  try {
    return await use(name, worker);
  } finally {
    worker.stop();
    await running;
  }
}

/** Return the operation after its end. */
export async function ended(
  handler: Handler,
  options: client.CreateOptions = {},
): Promise<Operation> {
  return working(handler, async (name) => {
    const { id } = await caller.create(name, { ...AT_ONCE, ...options });
    return caller.wait(id, { timeoutMs: 20_000 });
  });
}

/** Return a handler that waits for the end of its signal, and a promise of its work. */
export function waiting(): { handler: Handler; work: Promise<Work> } {
  let begun: (work: Work) => void;
  const work = new Promise<Work>((resolve) => {
    begun = resolve;
  });
  const handler = async (given: Work) => {
    begun(given);
    await pause(60_000, undefined, { signal: given.signal });
  };
  return { handler, work };
}

/** Return all items. */
export async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const item of items) {
    found.push(item);
  }
  return found;
}
