/** The loops whose speed is measured: with the client, and with the bare stub. */
import { create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { OperationService } from "../src/gen/milepost/v1/operation_service_pb.js";
import {
  type StreamProgressRequest,
  StreamProgressRequestSchema,
  WorkerService,
} from "../src/gen/milepost/v1/worker_service_pb.js";
import { Milepost, type Work, Worker } from "../src/index.js";

const ID = "op_0123456789abcdef01234567";
const DEADLINE_MS = 10_000;
/** Time between two reports of one operation. */
const INTERVAL_MS = 100;

interface BenchArguments {
  readonly address: string;
  readonly api_key: string;
  readonly functions: readonly string[];
  readonly loop: string;
  readonly seconds: number;
  readonly concurrency: number;
}

const LOOPS: Readonly<Record<string, (args: BenchArguments) => Promise<unknown>>> = {
  unary,
  unary_stub: unaryStub,
  stream,
  stream_stub: streamStub,
};

/** Run one loop, and return how often it went round, in which time and CPU time. */
export async function bench(args: BenchArguments): Promise<unknown> {
  const loop = LOOPS[args.loop];
  if (loop === undefined) {
    throw new Error(`there is no loop ${args.loop}`);
  }
  return loop(args);
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Return the sum of the rounds of so many tasks, and what they took. */
async function measure(concurrency: number, rounds: (number: number) => Promise<number>) {
  const begun = performance.now();
  const before = process.cpuUsage();
  const counts = await Promise.all(Array.from({ length: concurrency }, (_, n) => rounds(n)));
  const { user, system } = process.cpuUsage(before);
  return {
    calls: counts.reduce((sum, count) => sum + count, 0),
    seconds: (performance.now() - begun) / 1000,
    cpu_seconds: (user + system) / 1e6,
  };
}

async function repeat({ seconds }: BenchArguments, call: () => Promise<unknown>) {
  const end = performance.now() + seconds * 1000;
  let count = 0;
  while (performance.now() < end) {
    await call();
    count += 1;
  }
  return count;
}

/** Report once in each interval, each operation at a moment of its own. */
async function paced(
  { seconds, concurrency }: BenchArguments,
  number: number,
  report: (progress: number) => unknown,
) {
  await sleep((INTERVAL_MS * number) / concurrency);
  const rounds = Math.floor((seconds * 1000) / INTERVAL_MS);
  let due = performance.now();
  for (let count = 0; count < rounds; count += 1) {
    await report(count / rounds);
    due += INTERVAL_MS;
    await sleep(Math.max(due - performance.now(), 0));
  }
  return rounds;
}

async function unary(args: BenchArguments) {
  await using milepost = new Milepost({ address: args.address, apiKey: args.api_key });
  return await measure(args.concurrency, () => repeat(args, () => milepost.get(ID)));
}

const headers = (args: BenchArguments) => ({ authorization: `Bearer ${args.api_key}` });
const transport = (args: BenchArguments) =>
  createGrpcTransport({ baseUrl: `http://${args.address}` });

async function unaryStub(args: BenchArguments) {
  const stub = createClient(OperationService, transport(args));
  const options = { headers: headers(args), timeoutMs: DEADLINE_MS };
  const get = () => stub.getOperation({ operationId: ID }, options);
  return measure(args.concurrency, () => repeat(args, get));
}

async function stream(args: BenchArguments) {
  await using milepost = new Milepost({ address: args.address, apiKey: args.api_key });
  let finish = () => {};
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const works: Work[] = [];
  let fill = () => {};
  const filled = new Promise<void>((resolve) => {
    fill = resolve;
  });
  const handler = (work: Work) => {
    works.push(work);
    if (works.length === args.concurrency) {
      fill();
    }
    return finished;
  };
  const { concurrency } = args;
  const worker = new Worker(milepost, { [String(args.functions[0])]: handler }, { concurrency });
  const running = worker.run();
  await filled;
  const measured = await measure(concurrency, (number) =>
    paced(args, number, (progress) => works[number]?.progress(progress)),
  );
  finish();
  worker.stop();
  await running;
  return measured;
}

async function streamStub(args: BenchArguments) {
  const stub = createClient(WorkerService, transport(args));
  const unsent: StreamProgressRequest[] = [];
  let isDone = false;
  let ring = () => {};
  async function* requests() {
    while (!isDone || unsent.length > 0) {
      const next = unsent.shift();
      if (next === undefined) {
        await new Promise<void>((resolve) => {
          ring = resolve;
        });
      } else {
        yield next;
      }
    }
  }
  const reading = (async () => {
    for await (const _ of stub.streamProgress(requests(), { headers: headers(args) })) {
      // only read
    }
  })();
  const measured = await measure(args.concurrency, (number) =>
    paced(args, number, (progress) => {
      const operationId = `op_${number.toString(16).padStart(24, "0")}`;
      unsent.push(create(StreamProgressRequestSchema, { operationId, attempt: 1, progress }));
      ring();
    }),
  );
  isDone = true;
  ring();
  await reading;
  return measured;
}
