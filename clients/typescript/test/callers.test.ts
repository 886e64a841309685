/** The calls of callers, against a real service. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import * as client from "../src/index.js";
import { Milepost, type Operation } from "../src/index.js";
import { BrokenProxy } from "./broken-proxy.js";
import { eventually } from "./waiting.js";
import { ABSENT, aFunction, all, caller, service, milepost as worker } from "./working.js";

/** Create an operation and claim it. */
async function claimed(name = aFunction(), options: client.CreateOptions = {}): Promise<Operation> {
  await caller.create(name, options);
  const [operation] = await worker.claim([name], { timeoutMs: 5_000, worker: "wally" });
  assert.ok(operation);
  return operation;
}

describe("create", () => {
  it("sends every field", async () => {
    const scheduleTime = new Date(Date.now() + 60_000);
    const operation = await caller.create("video.transcode", {
      version: "2",
      metadata: { source: "in.mov", nested: [1, null, { "ä🙂": 1.5 }] },
      ttlMs: 3_600_000,
      retryAfterMs: 7_000,
      maxAttempts: 5,
      retryPolicy: { initialBackoffMs: 250, backoffMultiplier: 3, maxBackoffMs: 9_000 },
      scheduleTime,
      priority: 9,
      uniqueKey: randomUUID(),
      queueTimeoutMs: 90_000,
      runTimeoutMs: 45_500,
      originalRequestId: "request-1",
    });
    assert.deepEqual(
      {
        version: operation.version,
        metadata: operation.metadata,
        ttlMs: operation.ttlMs,
        retryAfterMs: operation.retryAfterMs,
        maxAttempts: operation.maxAttempts,
        retryPolicy: operation.retryPolicy,
        scheduleTime: operation.scheduleTime,
        priority: operation.priority,
        queueTimeoutMs: operation.queueTimeoutMs,
        runTimeoutMs: operation.runTimeoutMs,
        originalRequestId: operation.originalRequestId,
        status: operation.status,
        nextStep: operation.nextStep,
      },
      {
        version: "2",
        metadata: { source: "in.mov", nested: [1, null, { "ä🙂": 1.5 }] },
        ttlMs: 3_600_000,
        retryAfterMs: 7_000,
        maxAttempts: 5,
        retryPolicy: { initialBackoffMs: 250, backoffMultiplier: 3, maxBackoffMs: 9_000 },
        scheduleTime,
        priority: 9,
        queueTimeoutMs: 90_000,
        runTimeoutMs: 45_500,
        originalRequestId: "request-1",
        status: "PENDING",
        nextStep: "CLAIM",
      },
    );
  });

  it("with the same requestId returns the same operation", async () => {
    const options = { requestId: randomUUID() };
    const first = await caller.create("video.transcode", options);
    const second = await caller.create("video.transcode", options);
    assert.deepEqual([second.id, second.replayed, first.replayed], [first.id, true, false]);
    await assert.rejects(caller.create("other", options), client.RequestIdReused);
  });

  it("joins the active operation with the unique key, or is refused", async () => {
    const uniqueKey = randomUUID();
    const first = await caller.create("video.transcode", { uniqueKey });
    const second = await caller.create("video.transcode", { uniqueKey });
    assert.deepEqual([second.id, second.joined], [first.id, true]);
    await assert.rejects(
      caller.create("video.transcode", { uniqueKey, uniqueKeyPolicy: "refuse" }),
      (error) => error instanceof client.UniqueKeyTaken && error.operationId === first.id,
    );
  });

  it("whose answer is lost is sent again, and creates one operation", async () => {
    await using proxy = await BrokenProxy.to(service.address);
    const apiKey = await service.key();
    await using milepost = new Milepost({ address: proxy.address, apiKey });
    await using direct = new Milepost({ address: service.address, apiKey });
    assert.deepEqual(await all(milepost.list()), []);
    proxy.isDeaf = true;
    const creating = milepost.create("video.transcode");
    await eventually(async () => (await all(direct.list())).length === 1, "committed");
    proxy.isDeaf = false;
    proxy.cut();
    const created = await creating;
    assert.equal(created.replayed, true);
    assert.deepEqual(
      (await all(milepost.list())).map(({ id }) => id),
      [created.id],
    );
  });

  it("names every field that is refused", async () => {
    await assert.rejects(caller.create("", { priority: 10 }), (error) => {
      assert.ok(error instanceof client.InvalidRequest);
      assert.deepEqual(
        new Set(error.violations.map(({ field }) => field)),
        new Set(["function", "priority"]),
      );
      return true;
    });
  });

  it("refuses a text that is not Unicode, and a number outside of int32, before it is sent", async () => {
    await assert.rejects(caller.create("\ud800"), client.NotJson);
    await assert.rejects(caller.create("f", { metadata: { "\udc00": 1 } }), client.NotJson);
    await assert.rejects(caller.create("f", { maxAttempts: 1.5 }), client.InvalidRequest);
  });
});

describe("a read", () => {
  it("of a missing operation is refused", async () => {
    await assert.rejects(caller.get(ABSENT), (error) => {
      assert.ok(error instanceof client.OperationNotFound && error instanceof client.MilepostError);
      assert.deepEqual([error.code, error.reason], ["NOT_FOUND", "OPERATION_NOT_FOUND"]);
      assert.deepEqual(error.metadata, { operation_id: ABSENT });
      return true;
    });
  });

  it("goes over all pages", async () => {
    const name = aFunction();
    const created: string[] = [];
    for (let n = 0; n < 7; n += 1) {
      created.unshift((await caller.create(name, { metadata: { n } })).id);
    }
    const listed = await all(caller.list({ function: name, pageSize: 3, full: true }));
    assert.deepEqual(
      listed.map(({ id }) => id),
      created,
    );
    assert.deepEqual(listed[0]?.metadata, { n: 6 });
    const none = await all(caller.list({ function: name, statuses: ["FAILED", "COMPLETED"] }));
    assert.deepEqual(none, []);
    await assert.rejects(all(caller.list({ statuses: ["UNKNOWN"] })), TypeError);
  });

  it("of the events shows the errors of every attempt", async () => {
    const { id, attempt } = await claimed();
    const error = { code: "FLAKY", message: "once", source: "disk", details: { n: [1] } };
    await worker.fail(id, [error], { attempt, retryable: true, retryDelayMs: 60_000 });
    const events = await all(caller.events(id, { pageSize: 1 }));
    const types = ["operation.created", "operation.started", "operation.retrying"];
    assert.deepEqual(
      events.map(({ type }) => type),
      types,
    );
    assert.deepEqual(events[2]?.errors, [error]);
    assert.equal(events[2]?.worker, "wally");
    assert.ok((await caller.get(id)).nextAttemptTime);
  });

  it("ends when its signal is aborted", async () => {
    const { id } = await caller.create(aFunction());
    const reason = new Error("enough");
    const ending = new AbortController();
    const waiting = caller.wait(id, { signal: ending.signal });
    ending.abort(reason);
    await assert.rejects(waiting, (error) => error === reason);
  });
});

describe("the result", () => {
  it("is the value that the worker returned", async () => {
    for (const value of [{ frames: 1200, none: null }, [], {}, "", 0, false, null, 1e300]) {
      const { id, attempt } = await claimed();
      await worker.complete(id, value, { attempt });
      assert.deepEqual(await caller.result(id), value);
    }
  });

  it("is undefined without one", async () => {
    const { id } = await claimed();
    await worker.complete(id);
    assert.equal(await caller.result(id), undefined);
  });

  it("may have 1 MiB, and no more", async () => {
    const { id } = await claimed();
    await assert.rejects(worker.complete(id, "x".repeat(1 << 20)), client.InvalidRequest);
    const text = "x".repeat((1 << 20) - 100);
    await worker.complete(id, text);
    assert.equal(await caller.result(id), text);
  });

  it("of a failed, cancelled or running operation is an error", async () => {
    const failed = await claimed();
    await worker.fail(failed.id, [{ code: "CODEC", message: "unsupported" }]);
    await assert.rejects(caller.result(failed.id), (error) => {
      assert.ok(error instanceof client.OperationFailed && error instanceof client.NoResult);
      assert.equal(error.errors[0]?.code, "CODEC");
      return true;
    });
    const running = await caller.create(aFunction());
    await assert.rejects(caller.result(running.id, { timeoutMs: 100 }), client.StillRunning);
    const cancelled = await caller.cancel(running.id, { reason: "no need" });
    assert.deepEqual([cancelled.status, cancelled.cancelReason], ["CANCELLED", "no need"]);
    await assert.rejects(caller.result(running.id), client.OperationCancelled);
    await assert.rejects(caller.cancel(running.id), client.Cancelled);
  });
});

describe("a change", () => {
  it("is refused if the operation has another revision", async () => {
    const { id } = await claimed();
    await assert.rejects(caller.cancel(id, { expectedRevision: 1 }), client.RevisionMismatch);
    await assert.rejects(
      caller.cancel(id, { expectedRevision: 2n ** 53n + 1n }),
      (error) =>
        error instanceof client.RevisionMismatch &&
        Object.values(error.metadata).includes(String(2n ** 53n + 1n)),
    );
  });

  it("of another attempt is refused", async () => {
    const { id } = await claimed();
    await assert.rejects(
      worker.updateProgress(id, { progress: 0.5 }, { attempt: 7 }),
      client.StaleAttempt,
    );
    await worker.updateProgress(id, { progress: 0.5, message: "half", checkpoint: { at: 1 } });
    await assert.rejects(worker.updateProgress(id, { progress: 0.1 }), client.ProgressDecrease);
    assert.deepEqual((await caller.get(id)).checkpoint, { at: 1 });
  });

  it("deletes an operation that has ended", async () => {
    const { id } = await claimed();
    await assert.rejects(caller.delete(id), client.IllegalTransition);
    await worker.complete(id, 1);
    await caller.delete(id);
    await assert.rejects(caller.get(id), client.OperationDeleted);
  });

  it("gives an operation back, and its checkpoint with it", async () => {
    const { id, attempt, function: name } = await claimed();
    await worker.updateProgress(id, { checkpoint: [1, 2] }, { attempt });
    const released = await worker.release(id, { attempt, reason: "not mine" });
    assert.equal(released.status, "PENDING");
    const [again] = await worker.claim([name], { timeoutMs: 5_000 });
    assert.deepEqual([again?.checkpoint, again?.failedAttempts, again?.attempt], [[1, 2], 0, 2]);
  });

  it("acknowledges a cancel that was requested", async () => {
    const { id, attempt } = await claimed();
    await assert.rejects(
      worker.acknowledgeCancellation(id, { attempt }),
      client.CancellationNotRequested,
    );
    const requested = await caller.cancel(id, { graceMs: 60_000 });
    assert.equal(requested.status, "PROCESSING");
    assert.ok(requested.cancelRequestTime);
    const acknowledged = await worker.acknowledgeCancellation(id, { attempt });
    assert.equal(acknowledged.status, "CANCELLED");
  });

  it("starts an operation by its id", async () => {
    const { id } = await caller.create(aFunction());
    const started = await worker.start(id, { worker: "wally", progress: 0.25 });
    assert.deepEqual(
      [started.status, started.progress, started.worker],
      ["PROCESSING", 0.25, "wally"],
    );
  });
});
