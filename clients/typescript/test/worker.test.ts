/** The worker, against a real service: whatever happens, every operation ends once. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { after, before, describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import * as client from "../src/index.js";
import {
  type Handler,
  type Logger,
  Milepost,
  type Operation,
  type Work,
  Worker,
} from "../src/index.js";
import { BrokenProxy } from "./broken-proxy.js";
import { Service } from "./service.js";
import { eventually } from "./waiting.js";

const AT_ONCE = { retryPolicy: { initialBackoffMs: 1 } };
const SILENT: Logger = { info: () => undefined, warn: () => undefined, error: () => undefined };
const PROGRAM = fileURLToPath(new URL("counting-worker.js", import.meta.url));

let service: Service;
let caller: Milepost;
let milepost: Milepost;

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

const aFunction = () => `test.${randomUUID()}`;

/** Run a worker with one handler while the function runs. */
async function working<Value>(
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
async function ended(handler: Handler, options: client.CreateOptions = {}): Promise<Operation> {
  return working(handler, async (name) => {
    const { id } = await caller.create(name, { ...AT_ONCE, ...options });
    return caller.wait(id, { timeoutMs: 20_000 });
  });
}

/** Return a handler that waits for the end of its signal, and a promise of its work. */
function waiting(): { handler: Handler; work: Promise<Work> } {
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

describe("a handler", () => {
  it("completes its operation with what it returns", async () => {
    const operation = await ended(async (work) => {
      await work.progress(0.5, "half");
      return { id: work.operation.id, none: null };
    });
    assert.deepEqual(operation.result, { id: operation.id, none: null });
    assert.deepEqual([operation.status, operation.attempt], ["COMPLETED", 1]);
    assert.equal(operation.progressMessage, "half");
  });

  it("may return no result, and the result null", async () => {
    assert.equal((await ended(() => undefined)).result, undefined);
    assert.equal((await ended(() => null)).result, null);
  });

  it("is tried again after whatever it throws, until no attempt is left", async () => {
    const thrown = [new RangeError("first"), "a text", undefined];
    const operation = await ended((work) => {
      throw thrown[work.operation.attempt - 1];
    });
    assert.deepEqual([operation.status, operation.attempt], ["FAILED", 3]);
    const errors: string[] = [];
    for await (const event of caller.events(operation.id)) {
      errors.push(...event.errors.map(({ code, message }) => `${code}: ${message}`));
    }
    assert.deepEqual(errors, [
      "RangeError: first",
      "ThrownValue: a text",
      "ThrownValue: undefined",
    ]);
  });

  it("fails for good by a PermanentFailure", async () => {
    const operation = await ended(() => {
      throw new client.PermanentFailure("unsupported", {
        code: "CODEC",
        source: "in.mov",
        details: { a: 1 },
      });
    });
    const error = { code: "CODEC", message: "unsupported", source: "in.mov", details: { a: 1 } };
    assert.deepEqual([operation.status, operation.attempt], ["FAILED", 1]);
    assert.deepEqual(operation.errors, [error]);
  });

  it("chooses the delay of the next attempt by a RetryLater", async () => {
    const failing = () => {
      throw new client.RetryLater(60_000, "the disk is full");
    };
    await working(failing, async (name) => {
      const { id } = await caller.create(name);
      const operation = await eventually(async () => {
        const found = await caller.get(id);
        return found.failedAttempts === 1 ? found : undefined;
      }, "retrying");
      const delayMs = Number(operation.nextAttemptTime) - Date.now();
      assert.ok(delayMs > 50_000 && delayMs <= 60_000, `${delayMs}`);
    });
  });

  it("ends its operation once, with the reason, if its result cannot be stored", async () => {
    const cycle: unknown[] = [];
    cycle.push(cycle);
    const hostile = {
      toJSON: () => {
        throw new Error("hostile");
      },
    };
    const results = [
      () => 1,
      Number.NaN,
      2n ** 60n,
      "\ud800",
      new Map(),
      cycle,
      hostile,
      "x".repeat(3 << 20),
      "y".repeat(1 << 20),
    ];
    for (const result of results) {
      const operation = await ended(() => result);
      assert.deepEqual([operation.status, operation.attempt], ["FAILED", 1]);
      assert.match(operation.errors[0]?.message ?? "", /^the result was refused: /);
    }
  });

  it("ends its operation if its error is refused", async () => {
    const operation = await ended(() => {
      throw new client.PermanentFailure("too large", {
        code: "CODEC",
        details: { text: "x".repeat(3 << 20) },
      });
    });
    assert.equal(operation.errors[0]?.code, "InvalidError");
  });

  it("gets the error of a refused report with its next one, and goes on", async () => {
    const operation = await ended(async (work) => {
      await work.progress(0.5);
      await eventually(
        async () => (await caller.get(work.operation.id)).progress === 0.5,
        "stored",
      );
      await work.progress(0.1);
      return eventually(async () => {
        try {
          await work.progress();
          return undefined;
        } catch (error) {
          return error instanceof client.ProgressDecrease ? "refused" : undefined;
        }
      }, "refused");
    });
    assert.equal(operation.result, "refused");
  });
});

describe("a checkpoint", () => {
  it("is stored before the next attempt, which begins with it", async () => {
    const found: unknown[] = [];
    const operation = await ended(async (work) => {
      found.push(work.resumedFrom);
      for (let n = 0; n < 50; n += 1) {
        await work.checkpoint({ attempt: work.operation.attempt, n });
      }
      if (work.operation.attempt < 3) {
        throw new Error("again");
      }
    });
    assert.equal(operation.status, "COMPLETED");
    assert.deepEqual(found, [undefined, { attempt: 1, n: 49 }, { attempt: 2, n: 49 }]);
  });

  it("is stored when flush returns", async () => {
    const operation = await ended(async (work) => {
      for (let n = 1; n <= 5; n += 1) {
        await work.checkpoint(n, n / 10);
      }
      await work.flush();
      return (await caller.get(work.operation.id)).checkpoint;
    });
    assert.equal(operation.result, 5);
  });

  it("is refused before it is sent, if it is too large", async () => {
    const operation = await ended(async (work) => {
      await assert.rejects(work.checkpoint("x".repeat(66_000)), RangeError);
      await assert.rejects(work.progress(0.5, "x".repeat(3 << 20)), RangeError);
      await assert.rejects(work.checkpoint(Number.NaN), client.NotJson);
      await work.checkpoint("x".repeat(65_000));
      await work.flush();
    });
    assert.equal(operation.status, "COMPLETED");
  });

  it("is stored before the release of a worker that stops", async () => {
    const handler = async (work: Work) => {
      for (let n = 1; n <= 20; n += 1) {
        await work.checkpoint(n);
      }
      await pause(60_000, undefined, { signal: work.signal });
    };
    const use = async (name: string) => {
      const { id } = await caller.create(name);
      await eventually(async () => (await caller.get(id)).checkpoint !== undefined, "saved");
      return id;
    };
    const id = await working(handler, use, { graceMs: 0 });
    const { status, checkpoint } = await caller.get(id);
    assert.deepEqual([status, checkpoint], ["PENDING", 20]);
  });
});

describe("the signal of a handler", () => {
  it("says that the operation was cancelled", async () => {
    const { handler, work } = waiting();
    await working(handler, async (name) => {
      const { id } = await caller.create(name);
      const { signal } = await work;
      await caller.cancel(id);
      await eventually(() => signal.aborted, "aborted");
      assert.ok(signal.reason instanceof client.Cancelled);
      assert.equal((await caller.get(id)).status, "CANCELLED");
      await assert.rejects((await work).progress(0.5), client.Cancelled);
    });
  });

  it("says that the lease is lost", async () => {
    const { handler, work } = waiting();
    await working(
      handler,
      async (name) => {
        const { id } = await caller.create(name);
        const { signal, operation } = await work;
        await milepost.release(id, { attempt: operation.attempt, delayMs: 60_000 });
        await eventually(() => signal.aborted, "aborted");
        const { reason } = signal;
        assert.ok(
          reason instanceof client.StaleAttempt || reason instanceof client.IllegalTransition,
        );
        assert.ok(!(reason instanceof client.Cancelled));
      },
      { leaseMs: 5_000 },
    );
  });

  it("is left alone by a cancel with a grace, which the handler acknowledges", async () => {
    const operation = await working(
      async (work) => {
        await pause(60_000, undefined, { signal: work.cancelRequested }).catch(() => undefined);
        assert.equal(work.signal.aborted, false);
        await work.progress(0.9, "cleaning up");
        work.cancelRequested.throwIfAborted();
      },
      async (name) => {
        const { id } = await caller.create(name);
        await eventually(async () => (await caller.get(id)).status === "PROCESSING", "processing");
        await caller.cancel(id, { graceMs: 60_000, reason: "no need" });
        return caller.wait(id, { timeoutMs: 20_000 });
      },
    );
    assert.deepEqual([operation.status, operation.progressMessage], ["CANCELLED", "cleaning up"]);
    assert.ok(operation.cancelDeliveredTime);
  });

  it("is aborted by a worker that stops, which acknowledges the cancel", async () => {
    const { handler, work } = waiting();
    const use = async (name: string) => {
      const { id } = await caller.create(name);
      const { cancelRequested } = await work;
      await caller.cancel(id, { graceMs: 60_000 });
      await eventually(() => cancelRequested.aborted, "requested");
      return id;
    };
    const id = await working(handler, use, { graceMs: 0 });
    assert.equal((await caller.get(id)).status, "CANCELLED");
  });

  it("is no reason to acknowledge a cancel that was not requested", async () => {
    const handler = () => {
      throw new client.CancelRequested("by itself");
    };
    const operation = await ended(handler, { maxAttempts: 1 });
    assert.deepEqual([operation.status, operation.errors[0]?.code], ["FAILED", "CancelRequested"]);
  });

  it("is aborted at the end of the grace", async () => {
    const { handler, work } = waiting();
    await working(handler, async (name) => {
      const { id } = await caller.create(name);
      const { signal, cancelRequested } = await work;
      await caller.cancel(id, { graceMs: 500 });
      await eventually(() => signal.aborted, "aborted");
      assert.ok(cancelRequested.reason instanceof client.CancelRequested);
      assert.ok(signal.reason instanceof client.Cancelled);
      assert.equal((await caller.get(id)).status, "CANCELLED");
    });
  });

  it("may be ignored: the slot is free again", async () => {
    let begun = 0;
    const deaf = () => {
      begun += 1;
      return new Promise(() => undefined);
    };
    const run = async (name: string) => {
      const first = await caller.create(name);
      await eventually(() => begun === 1, "begun");
      await caller.create(name);
      await caller.cancel(first.id);
      await eventually(() => begun === 2, "the next one");
    };
    await working(deaf, run, { concurrency: 1, graceMs: 300 });
  });
});

describe("a worker", () => {
  it("holds no more operations at once than it may", async () => {
    let now = 0;
    let max = 0;
    const handler = async () => {
      max = Math.max(max, ++now);
      await pause(50);
      now -= 1;
    };
    await working(
      handler,
      async (name) => {
        const ids = await Promise.all(Array.from({ length: 12 }, () => caller.create(name)));
        await Promise.all(ids.map(({ id }) => caller.result(id, { timeoutMs: 20_000 })));
      },
      { concurrency: 3 },
    );
    assert.equal(max, 3);
  });

  it("gives back within 2 s what it cannot finish, and as no failed attempt", async () => {
    const deaf = () => new Promise(() => undefined);
    const ids: string[] = [];
    let stopTime = 0;
    await working(
      deaf,
      async (name, worker) => {
        for (let n = 0; n < 100; n += 1) {
          ids.push((await caller.create(name)).id);
        }
        const isTaken = async (id: string) => (await caller.get(id)).status === "PROCESSING";
        await eventually(async () => (await Promise.all(ids.map(isTaken))).every(Boolean), "taken");
        stopTime = performance.now();
        worker.stop();
      },
      { concurrency: 100, graceMs: 100 },
    );
    assert.ok(performance.now() - stopTime < 2_600, `${performance.now() - stopTime} ms`);
    for (const id of ids) {
      const { status, failedAttempts } = await caller.get(id);
      assert.deepEqual([status, failedAttempts], ["PENDING", 0]);
    }
  });

  it("gives everything back if its client is closed", async () => {
    await using own = new Milepost({ address: service.address, apiKey: await service.workerKey() });
    const { handler, work } = waiting();
    const name = aFunction();
    const worker = new Worker(own, { [name]: handler }, { log: SILENT });
    const running = assert.rejects(worker.run(), /the client was closed/);
    const { id } = await caller.create(name);
    const { signal } = await work;
    await own.close();
    await running;
    assert.ok(signal.reason instanceof client.WorkerStopped);
    assert.equal((await caller.get(id)).status, "PENDING");
  });

  it("ends with the refusal of its claims", async () => {
    await using own = new Milepost({ address: service.address, apiKey: await service.key() });
    const worker = new Worker(own, { f: () => 1 }, { log: SILENT });
    await assert.rejects(worker.run(), client.PermissionDenied);
  });

  it("finishes its work over a restart of the service and cut connections", async () => {
    await using proxy = await BrokenProxy.to(service.address);
    await using own = new Milepost({ address: proxy.address, apiKey: await service.workerKey() });
    let go = () => undefined as unknown;
    const restarted = new Promise((resolve) => {
      go = () => resolve(undefined);
    });
    const handler = async (work: Work) => {
      await work.progress(0.5);
      await restarted;
      await work.progress(0.7, "after the restart");
      return 1;
    };
    const use = async (name: string) => {
      const operations = await Promise.all(Array.from({ length: 9 }, () => caller.create(name)));
      const isTaken = async (id: string) => (await caller.get(id)).progress === 0.5;
      for (const { id } of operations) {
        await eventually(() => isTaken(id), "taken");
      }
      await service.ask({ do: "kill" });
      go();
      await service.ask({ do: "start" });
      proxy.cut();
      for (const { id } of operations) {
        const operation = await caller.wait(id, { timeoutMs: 20_000 });
        assert.deepEqual([operation.status, operation.attempt], ["COMPLETED", 1]);
        assert.equal(operation.progressMessage, "after the restart");
      }
    };
    await working(handler, use, { milepost: own });
  });

  it("that is killed loses no work: the next one begins at the checkpoint", async () => {
    const name = aFunction();
    const env = {
      ...process.env,
      MILEPOST_ADDRESS: service.address,
      MILEPOST_API_KEY: await service.workerKey(),
      FUNCTION: name,
    };
    const start = () => spawn(process.execPath, [PROGRAM], { env, stdio: "inherit" });
    const { id } = await caller.create(name, { maxAttempts: 10 });
    let reached = 0;
    for (let kill = 1; kill <= 2; kill += 1) {
      const child = start();
      const checkpoint = await eventually(
        async () => {
          const found = Number((await caller.get(id)).checkpoint ?? 0);
          return found > reached ? found : undefined;
        },
        "a further checkpoint",
        30_000,
      );
      child.kill("SIGKILL");
      await once(child, "exit");
      reached = checkpoint;
    }
    const child = start();
    const result = await caller.result<{ begun: number }>(id, { timeoutMs: 60_000 });
    assert.ok(result.begun >= reached && reached > 0, JSON.stringify({ result, reached }));
    child.kill("SIGTERM");
    assert.deepEqual(await once(child, "exit"), [0, null]);
  });

  it("warns of a handler that blocks the event loop", async () => {
    const warnings: string[] = [];
    const log = { ...SILENT, warn: (text: string) => warnings.push(text) };
    const blocking = () => {
      const end = performance.now() + 3_500;
      while (performance.now() < end);
    };
    const use = async (name: string) => {
      await caller.create(name);
      await eventually(() => warnings.length > 0, "warned");
      assert.match(warnings[0] ?? "", /the event loop was blocked for 3\.\d s/);
    };
    await working(blocking, use, { leaseMs: 5_000, log });
  });

  it("keeps 500 operations in hand at the default limits", { timeout: 150_000 }, async () => {
    const lifted = ["creates_per_minute", "active_operations_max", "reads_per_minute"];
    const settings = lifted.flatMap((name) => ["--set", `${name}=100000`]);
    await using limited = await Service.start("--limited", ...settings);
    await using owner = new Milepost({ address: limited.address, apiKey: await limited.key() });
    const apiKey = await limited.workerKey();
    await using own = new Milepost({ address: limited.address, apiKey });
    let inHand = 0;
    let max = 0;
    const handler = async (work: Work) => {
      max = Math.max(max, ++inHand);
      for (let step = 1; step <= 20; step += 1) {
        await pause(1_000, undefined, { signal: work.signal });
        await work.progress(step / 20);
      }
      inHand -= 1;
      return work.operation.attempt;
    };
    const name = aFunction();
    const worker = new Worker(
      own,
      { [name]: handler },
      { concurrency: 500, leaseMs: 10_000, log: SILENT },
    );
    const ids: string[] = [];
    for (let n = 0; n < 500; n += 50) {
      const created = Array.from({ length: 50 }, () => owner.create(name));
      ids.push(...(await Promise.all(created)).map(({ id }) => id));
    }
    const running = worker.run();
    running.catch(() => undefined); // the test fails by the results
    const options = { timeoutMs: 120_000 };
    const attempts = await Promise.all(ids.map((id) => owner.result(id, options)));
    assert.deepEqual(new Set(attempts), new Set([1]));
    assert.equal(max, 500);
    worker.stop();
    await running;
  });
});
