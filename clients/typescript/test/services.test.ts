/** Services with other settings: TLS, webhooks, and the testee. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import { Webhook } from "standardwebhooks";
import * as client from "../src/index.js";
import { Milepost } from "../src/index.js";
import { Service } from "./service.js";

const TESTEE = fileURLToPath(new URL("../testee/main.js", import.meta.url));

describe("TLS", () => {
  it("is used with an authority of one's own, and refuses any other", async () => {
    await using service = await Service.start("--tls");
    const apiKey = await service.key();
    const ca = readFileSync(service.caFile);
    await using milepost = new Milepost({ address: service.address, apiKey, tls: { ca } });
    assert.equal((await milepost.create("video.transcode")).status, "PENDING");
    const options = { address: service.address, apiKey, deadlineMs: 300 };
    await using stranger = new Milepost({ ...options, tls: {} });
    await assert.rejects(stranger.get("op_000000000000000000000000"), client.Unavailable);
    await using plain = new Milepost(options);
    await assert.rejects(
      plain.get("op_000000000000000000000000"),
      (error) => error instanceof client.Unavailable || error instanceof client.DeadlineExceeded,
    );
  });
});

describe("the webhooks of a caller", () => {
  it("have secrets and deliveries", async () => {
    await using service = await Service.start("--webhooks");
    await using milepost = new Milepost({ address: service.address, apiKey: await service.key() });
    await assert.rejects(milepost.signingSecrets(), client.SigningSecretNotFound);
    const first = (await milepost.rotateSigningSecret()).current;
    const { current, previous } = await milepost.rotateSigningSecret();
    assert.equal(previous?.value, first.value);
    assert.doesNotMatch(inspect(current) + JSON.stringify(current), /whsec_/);
    assert.equal((await milepost.signingSecrets()).current.value, current.value);
    const time = new Date();
    const headers = {
      "webhook-id": "1",
      "webhook-timestamp": String(Math.floor(time.getTime() / 1000)),
      "webhook-signature": new Webhook(current.value).sign("1", time, "{}"),
    };
    assert.deepEqual(client.verifyWebhook("{}", headers, [first.value, current.value]), {});

    const callbackUrl = "https://127.0.0.1/hook";
    const refused = (error: unknown) =>
      error instanceof client.InvalidRequest && error.violations[0]?.field === "callback_url";
    await assert.rejects(milepost.create("video.transcode", { callbackUrl }), refused);
    await assert.rejects(milepost.sendTestWebhook(callbackUrl), refused);
    const deliveries = milepost.deliveries({ statuses: ["PENDING"] });
    assert.deepEqual(await deliveries.next(), { done: true, value: undefined });
    await assert.rejects(milepost.redeliver(randomUUID()), client.MilepostError);
  });
});

describe("the testee", () => {
  it("performs commands, one a line", async () => {
    await using service = await Service.start();
    const process_ = spawn(process.execPath, [TESTEE], { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface(process_.stdout)[Symbol.asyncIterator]();
    const ask = async (command: object) => {
      process_.stdin.write(`${JSON.stringify({ id: 1, ...command })}\n`);
      return JSON.parse((await lines.next()).value);
    };
    const { address } = service;
    const connected = await ask({ call: "connect", address, api_key: await service.key() });
    const connection = connected.ok.client;
    const metadata = { a: [1, null] };
    const create = { call: "create", client: connection, function: "f" };
    const created = await ask({ ...create, metadata, ttl: 3600.5, unique_key: "k" });
    const { status, ttl } = created.ok;
    assert.deepEqual([status, ttl, created.ok.metadata], ["PENDING", 3600.5, metadata]);
    const get = { call: "get", client: connection, operation_id: "op_000000000000000000000000" };
    assert.equal((await ask(get)).error.class, "OperationNotFound");
    const number = { n: { $integer: "9007199254740993" } };
    assert.equal((await ask({ ...create, metadata: number })).error.class, "Error");
    const watch = { call: "watch", client: connection, operation_id: created.ok.id };
    const { stream } = (await ask(watch)).ok;
    assert.equal((await ask({ call: "next", stream })).ok.item.revision, 1);
    assert.deepEqual((await ask({ call: "close", stream })).ok, {});
    assert.equal((await ask({ call: "dance" })).unsupported, true);
    const ended = new Promise((resolve) => process_.once("exit", resolve));
    process_.stdin.end();
    assert.equal(await ended, 0);
  });
});
