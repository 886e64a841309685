/** The handlers of a worker, against a real service: whatever happens, every operation ends once. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { inspect } from "node:util";
import { context, propagation, trace } from "@opentelemetry/api";
import type { Work } from "../src/index.js";
import * as client from "../src/index.js";
import { StoredContext } from "./stored-context.js";
import { eventually } from "./waiting.js";
import { caller, ended, milepost, SILENT, waiting, working } from "./working.js";

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

  it("runs in the trace that created its operation", async () => {
    const sampled = `00-${"a".repeat(32)}-${"b".repeat(16)}-01`;
    const handler = async () => {
      await pause(1);
      return trace.getSpanContext(context.active())?.traceId ?? "none";
    };
    context.setGlobalContextManager(new StoredContext());
    propagation.setGlobalPropagator({
      inject: (_active, carrier, setter) => setter.set(carrier, "traceparent", sampled),
      extract: (active) => active,
      fields: () => ["traceparent"],
    });
    try {
      const operation = await ended(handler);
      assert.equal(operation.traceparent?.split("-")[1], "a".repeat(32));
      assert.equal(operation.result, "a".repeat(32));
      propagation.disable();
      assert.equal((await ended(handler)).result, "none");
    } finally {
      propagation.disable();
      context.disable();
    }
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

  it("ends its operation once, with the reason, whatever code its error has", async () => {
    const hostile = (text: string) => () => {
      throw new Error(text);
    };
    const failure = new client.PermanentFailure("m", { code: "CODEC" });
    const later = new client.RetryLater(60_000, "m");
    const trap = hostile("in a trap");
    const thrown: [unknown, string][] = [
      [AbortSignal.abort().reason, "AbortError: This operation was aborted"],
      [Symbol("odd"), "ThrownValue: Symbol(odd)"],
      [Object.create(null), "ThrownValue: ThrownValue without a readable text"],
      [Object.defineProperty(new Error("m"), "message", { get: trap }), "Error: Error without a"],
      [Object.defineProperty(new Error("m"), "cause", { get: trap }), "Error: m"],
      [Object.assign(new Error("m"), { [inspect.custom]: trap }), "Error: m"],
      [
        Object.defineProperty(failure, "details", { get: trap }),
        "InvalidError: The error was refused: in a trap",
      ],
      [
        Object.defineProperty(later, "delayMs", { get: trap }),
        "InvalidError: The error was refused: in a trap",
      ],
      [
        new Proxy(new Error("m"), { getPrototypeOf: trap }),
        "InvalidError: The error was refused: in a trap",
      ],
      [
        new client.PermanentFailure("m", { details: { toJSON: trap } as never }),
        "InvalidError: The error was refused: ",
      ],
      [
        new client.PermanentFailure("m", { source: 7 as never }),
        "InvalidError: The error was refused: ",
      ],
      [new client.RetryLater(Number.NaN), "InvalidError: The error was refused: "],
      [new client.RetryLater(Number.POSITIVE_INFINITY), "InvalidError: The error was refused: "],
    ];
    const log = { ...SILENT, error: (_: string, problem?: unknown) => void inspect(problem) };
    const handler = async (work: Work) => {
      throw thrown[Number(work.operation.version)]?.[0];
    };
    await working(
      handler,
      async (name) => {
        for (const [index, [, want]] of thrown.entries()) {
          const { id } = await caller.create(name, { version: String(index), maxAttempts: 1 });
          const { status, attempt, errors } = await caller.wait(id, { timeoutMs: 10_000 });
          assert.deepEqual([status, attempt, errors.length], ["FAILED", 1, 1], want);
          const found = `${errors[0]?.code}: ${errors[0]?.message}`;
          assert.ok(found.startsWith(want), `${want} is ${found}`);
        }
      },
      { log },
    );
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
      assert.match(operation.errors[0]?.message ?? "", /^the result cannot be stored: /);
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

  it("cannot end the reports of all operations by one that cannot be sent", async () => {
    const operation = await ended(async (work) => {
      const packed = { $typeName: "google.protobuf.Any", typeUrl: 5, value: new Uint8Array() };
      await assert.rejects(work.checkpoint(packed), client.NotJson);
      await assert.rejects(work.progress("half" as never), TypeError);
      await assert.rejects(work.progress(0.5, 7 as never), TypeError);
      await work.progress(0.5);
      await work.flush();
      return 1;
    });
    assert.equal(operation.status, "COMPLETED");
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
    const code = "CancellationNotRequested";
    assert.deepEqual([operation.status, operation.errors[0]?.code], ["FAILED", code]);
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
