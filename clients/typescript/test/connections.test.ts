/** Watches and connections, against a real service that goes away and returns. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as client from "../src/index.js";
import { Milepost, type Operation } from "../src/index.js";
import { BrokenProxy } from "./broken-proxy.js";
import { eventually } from "./waiting.js";
import { ABSENT, aFunction, all, caller, service, milepost as worker } from "./working.js";

/** Return a signal that is aborted in a moment. */
function aborted(reason: Error): AbortSignal {
  const ending = new AbortController();
  setTimeout(() => ending.abort(reason), 50);
  return ending.signal;
}

describe("a watch", () => {
  it("shows every change, up to the end", async () => {
    const name = aFunction();
    const { id } = await caller.create(name);
    const watching = all(caller.watch(id));
    const [{ attempt } = { attempt: 0 }] = await worker.claim([name], { timeoutMs: 5_000 });
    await worker.complete(id, 1, { attempt });
    const statuses = (await watching).map(({ status }) => status);
    assert.deepEqual(statuses, ["PENDING", "PROCESSING", "COMPLETED"]);
    const later = await all(caller.watch(id, { afterRevision: 1 }));
    assert.deepEqual(
      later.map(({ status }) => status),
      ["PROCESSING", "COMPLETED"],
    );
    await assert.rejects(all(caller.watch(id, { afterRevision: 99 })), client.RevisionAhead);
  });

  it("goes on over cut connections and a restart of the service, without a gap", async () => {
    await using proxy = await BrokenProxy.to(service.address);
    await using milepost = new Milepost({ address: proxy.address, apiKey: await service.key() });
    const name = aFunction();
    const { id } = await milepost.create(name);
    const seen: Operation[] = [];
    const watching = (async () => {
      for await (const operation of milepost.watch(id)) {
        seen.push(operation);
      }
    })();
    const statuses = () => seen.map(({ status }) => status).join();
    await eventually(() => statuses() === "PENDING", "pending");
    proxy.cut();
    const [claim] = await worker.claim([name], { timeoutMs: 5_000 });
    await eventually(() => statuses() === "PENDING,PROCESSING", "processing");
    await service.ask({ do: "kill" });
    await service.ask({ do: "start" });
    await worker.release(id, { attempt: claim?.attempt });
    proxy.cut();
    await worker.claim([name], { timeoutMs: 5_000 });
    await worker.complete(id, 1);
    await watching;
    assert.deepEqual(statuses(), "PENDING,PROCESSING,PENDING,PROCESSING,COMPLETED");
    const revisions = seen.map(({ revision }) => revision);
    assert.deepEqual(revisions, [1, 2, 3, 4, 5]);
    assert.ok(proxy.connections > 2);
  });

  it("ends with its signal, and with the loop that reads it", async () => {
    const { id } = await caller.create(aFunction());
    const reason = new Error("enough");
    await assert.rejects(
      async () => {
        const ending = new AbortController();
        for await (const _ of caller.watch(id, { signal: ending.signal })) {
          ending.abort(reason);
        }
      },
      (error) => error === reason,
    );
    for await (const { status } of caller.watch(id)) {
      assert.equal(status, "PENDING");
      break;
    }
  });
});

describe("a connection", () => {
  it("asks a token source before every call", async () => {
    const keys = [await service.key(), "mp_wrong"];
    const asked: string[] = [];
    await using milepost = new Milepost({
      address: service.address,
      token: async () => {
        const token = keys[asked.length] ?? "";
        asked.push(token);
        return token;
      },
    });
    await milepost.create("video.transcode");
    await assert.rejects(milepost.get(ABSENT), client.Unauthenticated);
    assert.deepEqual(asked, keys);
  });

  it("is unavailable while the token source fails", async () => {
    await using milepost = new Milepost({
      address: service.address,
      token: () => Promise.reject(new Error("the issuer is away")),
      deadlineMs: 300,
    });
    await assert.rejects(milepost.get(ABSENT), (error) => {
      assert.ok(error instanceof client.Unavailable && error.cause instanceof Error);
      return error.cause.message === "the issuer is away";
    });
  });

  it("does not wait for a token beyond the deadline, nor once a call is ended", async () => {
    const reason = new Error("enough");
    await using milepost = new Milepost({
      address: service.address,
      token: () => new Promise(() => undefined),
      deadlineMs: 200,
    });
    await assert.rejects(milepost.get(ABSENT, { deadlineMs: 50 }), client.DeadlineExceeded);
    await assert.rejects(all(milepost.watch(ABSENT)), client.Unavailable);
    await assert.rejects(
      milepost.get(ABSENT, { deadlineMs: 60_000, signal: aborted(reason) }),
      (error) => error === reason,
    );
  });

  it("takes deadlines beyond those of the timers of Node", async () => {
    for (const deadlineMs of [2 ** 40, Number.POSITIVE_INFINITY]) {
      await using milepost = new Milepost({ address: service.address, deadlineMs });
      const signal = AbortSignal.timeout(5_000);
      await assert.rejects(milepost.get(ABSENT, { signal }), client.Unauthenticated);
      await assert.rejects(milepost.get(ABSENT, { deadlineMs: Number.NaN }), TypeError);
    }
  });

  it("is unavailable without a listener, and fails when it is closed", async () => {
    const milepost = new Milepost({ address: "127.0.0.1:1", deadlineMs: 300 });
    await assert.rejects(milepost.get(ABSENT), client.Unavailable);
    await milepost.close();
    await assert.rejects(milepost.get(ABSENT));
  });

  it("reaches a service by a name", async () => {
    const port = service.address.split(":")[1];
    await using milepost = new Milepost({
      address: `localhost:${port}`,
      apiKey: await service.key(),
    });
    assert.equal((await milepost.create("video.transcode")).status, "PENDING");
  });
});
