/** Whole workers, against a real service: limits, stops, outages and kills. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import * as client from "../src/index.js";
import { Milepost, type Work, Worker } from "../src/index.js";
import { BrokenProxy } from "./broken-proxy.js";
import { Service } from "./service.js";
import { eventually } from "./waiting.js";
import { aFunction, caller, SILENT, service, waiting, working } from "./working.js";

const PROGRAM = fileURLToPath(new URL("counting-worker.js", import.meta.url));

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
