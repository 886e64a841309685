/** The progress stream, with a service on loopback that answers as a test says. */
import assert from "node:assert/strict";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { OperationSchema } from "../src/gen/milepost/v1/operation_pb.js";
import { type ProgressUpdate, WorkerService } from "../src/gen/milepost/v1/worker_service_pb.js";
import { HeldOperation } from "../src/held-operation.js";
import { Milepost } from "../src/index.js";
import { fromOperation } from "../src/operation.js";
import { eventually } from "./waiting.js";

/** Takes updates, acknowledges them, and ends a stream where the test says so. */
class StreamService {
  readonly updates: ProgressUpdate[] = [];
  /** The number of updates of every message. */
  readonly sizes: number[] = [];
  streams = 0;
  refuse: (update: ProgressUpdate) => ConnectError | undefined = () => undefined;
  beforeAnswer: () => Promise<void> = () => Promise.resolve();

  readonly #server = createServer(
    connectNodeAdapter({
      routes: ({ rpc }) => {
        const { updates, sizes } = this;
        const isRefused = (update: ProgressUpdate) => this.refuse(update);
        const beforeAnswer = () => this.beforeAnswer();
        const begin = () => {
          this.streams += 1;
        };
        rpc(WorkerService.method.streamProgress, async function* (requests) {
          begin();
          for await (const request of requests) {
            sizes.push(request.updates.length);
            for (const update of request.updates) {
              const refusal = isRefused(update);
              if (refusal !== undefined) {
                throw refusal;
              }
              updates.push(update);
            }
            await beforeAnswer();
            const acknowledgements = request.updates.map(({ operationId, attempt = 0 }) => ({
              operationId,
              attempt,
            }));
            yield { acknowledgements };
          }
        });
      },
    }),
  );

  /** Run the function with a client of the service. */
  async serve(use: (milepost: Milepost) => Promise<void>): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    const { port } = this.#server.address() as AddressInfo;
    try {
      await using milepost = new Milepost({ address: `127.0.0.1:${port}`, apiKey: "key" });
      await use(milepost);
    } finally {
      this.#server.close();
    }
  }
}

/** Return an operation that was claimed now, with a lease of so many seconds. */
function claimed(id: string, leaseMs: number) {
  const now = Date.now();
  return fromOperation(
    create(OperationSchema, {
      id,
      attempt: 1,
      revision: 2n,
      startTime: timestampFromDate(new Date(now)),
      leaseExpireTime: timestampFromDate(new Date(now + leaseMs)),
    }),
  );
}

const holder = { onOver: () => undefined, onCancelRequested: () => undefined };
const hold = (milepost: Milepost, id: string, leaseMs = 60_000) =>
  milepost._progressStream.hold(claimed(id, leaseMs), holder);

/** The refusal of a stream whose worker has written too much. */
function limited(retryAfterMs: number): ConnectError {
  const error = new ConnectError("slower", Code.ResourceExhausted);
  const nanos = (retryAfterMs % 1_000) * 1_000_000;
  error.details = [
    { desc: ErrorInfoSchema, value: { reason: "RATE_LIMITED", domain: "milepost" } },
    {
      desc: RetryInfoSchema,
      value: { retryDelay: { seconds: BigInt(Math.floor(retryAfterMs / 1_000)), nanos } },
    },
  ];
  return error;
}

describe("a progress stream", () => {
  it("sends what is due in one message of at most 1,000 updates", async () => {
    const service = new StreamService();
    await service.serve(async (milepost) => {
      const held = Array.from({ length: 1_500 }, (_, n) => hold(milepost, `${n}`));
      await eventually(() => service.updates.length === 1_500, "first reports");
      assert.ok(service.sizes.length <= 20, `${service.sizes}`);
      assert.ok(Math.max(...service.sizes) <= 1_000);
      await eventually(() => held.every(({ isUnanswered }) => !isUnanswered), "answers");
      held[3]?.report({ progress: 0.5 });
      await eventually(() => service.updates.length === 1_501, "one more");
      assert.equal(service.sizes.at(-1), 1);
      for (const each of held) {
        each.close();
      }
    });
  });

  it("sends large reports in messages that gRPC accepts", async () => {
    const service = new StreamService();
    await service.serve(async (milepost) => {
      const held = Array.from({ length: 50 }, (_, n) => hold(milepost, `${n}`));
      for (const each of held) {
        each.report({ message: "x".repeat(60_000) });
      }
      await Promise.all(held.map((each) => each.flush()));
      for (const each of held) {
        each.close();
      }
    });
    assert.equal(service.streams, 1);
    assert.ok(Math.max(...service.sizes) < 10, `${service.sizes}`);
  });

  it("lets a newer report wait for the answer to the last one", async () => {
    const service = new StreamService();
    let answer: (() => void) | undefined;
    const answered = new Promise<void>((resolve) => {
      answer = resolve;
    });
    service.beforeAnswer = () => answered;
    await service.serve(async (milepost) => {
      const held = hold(milepost, "one");
      held.report({ progress: 0.1 });
      await eventually(() => service.updates.length === 1, "first report");
      held.report({ progress: 0.2 });
      held.report({ progress: 0.3 });
      answer?.();
      await held.flush();
      held.close();
    });
    assert.deepEqual(
      service.updates.map(({ progress }) => progress),
      [0.1, 0.3],
    );
  });

  it("only renews leases between a rate limit and the retry time", async () => {
    const service = new StreamService();
    let refuseTime = 0;
    const early: ProgressUpdate[] = [];
    service.refuse = (update) => {
      if (refuseTime === 0 && update.progress !== undefined) {
        refuseTime = performance.now();
        return limited(2_000);
      }
      if (refuseTime > 0 && performance.now() < refuseTime + 2_000) {
        early.push(update);
      }
      return undefined;
    };
    await service.serve(async (milepost) => {
      const held = hold(milepost, "one", 2_000);
      held.report({ progress: 0.5 });
      await held.flush();
      held.close();
    });
    assert.ok(early.length > 0);
    assert.ok(early.every(({ progress }) => progress === undefined));
    assert.equal(service.updates.at(-1)?.progress, 0.5);
  });

  it("keeps every report without an answer, and each answer stores the oldest", () => {
    const outbox = { enqueue: () => undefined, drop: () => undefined };
    const held = new HeldOperation(outbox, claimed("one", 60_000), holder);
    for (const progress of [0.1, 0.2, 0.3]) {
      held.report({ progress });
      held.take(progress, false);
    }
    const stored = [1, 2, 3].map(() => {
      held.acknowledge();
      return held.unstored === undefined;
    });
    assert.deepEqual(stored, [false, false, true]);
    held.report({ progress: 0.4 });
    assert.equal(held.take(1, true).progress, undefined);
    held.acknowledge();
    assert.notEqual(held.unstored, undefined);
  });
});
