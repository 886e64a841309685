/** The parts of the client that need no service. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { context, propagation, trace } from "@opentelemetry/api";
import { Webhook } from "standardwebhooks";
import { baseUrl, isLoopback, parseAddress } from "../src/address.js";
import { Backoff } from "../src/backoff.js";
import { describe as described } from "../src/failure.js";
import * as client from "../src/index.js";
import { fromAny, toAny } from "../src/json.js";
import { BY_REASON, errorClass } from "../src/refusal.js";
import { untilFinal } from "../src/retry.js";
import { inTrace, traceHeaders } from "../src/tracing.js";
import { StoredContext } from "./stored-context.js";

const PACKAGE = new URL("../../", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, PACKAGE), "utf-8");

describe("an address", () => {
  const LOCAL = [
    "127.0.0.1:7450",
    "127.8.8.8:1",
    "localhost:7450",
    "[::1]:7450",
    "unix:/run/m.sock",
  ];
  const REMOTE = ["10.0.0.1:7450", "milepost:7450", "dns:///localhost.example.com:1", "[::2]:7450"];

  it("is encrypted unless it stays on this machine", () => {
    assert.deepEqual(
      LOCAL.map((text) => isLoopback(parseAddress(text))),
      LOCAL.map(() => true),
    );
    assert.deepEqual(
      REMOTE.map((text) => isLoopback(parseAddress(text))),
      REMOTE.map(() => false),
    );
  });

  it("may have the forms of gRPC", () => {
    assert.equal(baseUrl(parseAddress("dns:///milepost:7450"), true), "https://milepost:7450");
    assert.equal(baseUrl(parseAddress("[::1]:7450"), false), "http://[::1]:7450");
    assert.equal(
      baseUrl(parseAddress("milepost.example.com"), true),
      "https://milepost.example.com",
    );
  });

  it("is refused if it is malformed", () => {
    for (const text of ["", "http://milepost:7450", "milepost:port", "milepost:99999", "a b:1"]) {
      assert.throws(() => parseAddress(text), TypeError, text);
    }
  });
});

describe("a client", () => {
  const address = "127.0.0.1:7450";

  it("refuses credentials and options that exclude each other", () => {
    const wrong = [
      { address, apiKey: "two words" },
      { address, apiKey: "key\n" },
      { address, apiKey: "key", token: () => "token" },
      { address, apiKey: "key", tls: {}, insecure: true },
      { address, tls: { cert: "certificate" } },
      { address, apiKey: "key", deadlineMs: 0 },
    ];
    for (const options of wrong) {
      assert.throws(() => new client.Milepost(options), TypeError);
    }
  });

  it("does not show its credential", async () => {
    const { inspect } = await import("node:util");
    const milepost = new client.Milepost({ address, apiKey: "very-secret" });
    assert.doesNotMatch(inspect(milepost, { depth: 10, showHidden: true }), /very-secret/);
  });

  it("says the version of its package", () => {
    assert.equal(client.VERSION, JSON.parse(read("package.json")).version);
  });

  it("locks its packages without the addresses of registries", () => {
    assert.doesNotMatch(read("package-lock.json"), /"resolved"/);
  });
});

describe("a JSON value", () => {
  const roundTrip = (value: unknown) => {
    const packed = toAny(value);
    return packed === undefined ? undefined : fromAny(packed);
  };

  it("arrives as it was sent", () => {
    const values = [
      null,
      true,
      0,
      -1.5,
      1e300,
      2 ** 53,
      "",
      "ä🙂\0",
      [],
      {},
      [[null]],
      { a: { b: [1] } },
    ];
    assert.deepEqual(values.map(roundTrip), values);
  });

  it("is absent if it is undefined, and present if it is null", () => {
    assert.equal(toAny(undefined), undefined);
    assert.equal(roundTrip(null), null);
  });

  it("may hold what JSON.stringify accepts", () => {
    const time = new Date(0);
    assert.deepEqual(roundTrip({ time, none: undefined, big: 2n ** 53n }), {
      time: "1970-01-01T00:00:00.000Z",
      big: 2 ** 53,
    });
  });

  it("is refused if it would change on its way", () => {
    const cycle: unknown[] = [];
    cycle.push(cycle, cycle);
    const deep = Array.from({ length: 31 }).reduce((inner: unknown) => [inner], 1);
    const wrong = [
      Number.NaN,
      Number.POSITIVE_INFINITY,
      2n ** 53n + 1n,
      "\ud800",
      { "\udc00": 1 },
      JSON.parse('{"__proto__": 1}'),
      new Map(),
      new Uint8Array(1),
      () => 1,
      Symbol("x"),
      [undefined],
      { $typeName: "google.protobuf.Any", typeUrl: "x/y" },
      { $typeName: "google.protobuf.Any", typeUrl: 5, value: new Uint8Array() },
      { $typeName: "google.protobuf.Any", typeUrl: "\ud800", value: new Uint8Array() },
      cycle,
      deep,
    ];
    for (const value of wrong) {
      assert.throws(() => toAny(value), client.NotJson);
    }
  });

  it("names the member that is refused", () => {
    assert.throws(() => toAny({ a: [{ b: Number.NaN }] }), /a\[0\]\.b is NaN/);
  });

  it("stays packed if it is another message", () => {
    const packed = create(AnySchema, {
      typeUrl: "type.googleapis.com/x.Y",
      value: new Uint8Array(2),
    });
    assert.equal(roundTrip(packed), packed);
  });
});

describe("an error", () => {
  const table = readFileSync(new URL("../README.md", PACKAGE), "utf-8");
  const reasons = [...table.matchAll(/^\| `([A-Z_]+)` \| [A-Z_]+ \|/gm)].map(
    ([, reason]) => reason,
  );

  it("has a class for every reason of the contract", () => {
    assert.ok(reasons.length > 20);
    assert.deepEqual(
      reasons.filter((reason) => !(String(reason) in BY_REASON)),
      [],
    );
  });

  it("has the class of its code if its reason is new", () => {
    assert.equal(errorClass("SOMETHING_NEW", {}, "NOT_FOUND"), client.NotFound);
    assert.equal(errorClass("toString", {}, "DATA_LOSS"), client.MilepostError);
  });

  it("of a transition is Cancelled if the operation is", () => {
    assert.equal(errorClass("ILLEGAL_TRANSITION", { status: "CANCELLED" }), client.Cancelled);
    assert.equal(errorClass("ILLEGAL_TRANSITION", { status: "FAILED" }), client.IllegalTransition);
  });
});

describe("the description of what a handler throws", () => {
  it("is storable, whatever it is", () => {
    const hostile = new Proxy(new Error(), {
      get: () => {
        throw new Error("hostile");
      },
    });
    const thrown = [undefined, null, "", "text", 1n, Symbol("s"), {}, Object.create(null), hostile];
    for (const problem of thrown) {
      const { code, message } = described(problem);
      assert.ok(code.trim() && message.trim());
    }
  });

  it("is the class and the text of an error", () => {
    const error = new RangeError(`a\0b\ud800${"x".repeat(20_000)}`);
    const { code, message } = described(error);
    assert.equal(code, "RangeError");
    assert.ok(message.startsWith("a\\x00b\\ud800xx") && message.length === 10_000);
  });

  it("is that of a permanent failure", () => {
    const failure = new client.PermanentFailure("unsupported", { code: "CODEC", source: "in.mov" });
    assert.deepEqual(described(failure), {
      code: "CODEC",
      message: "unsupported",
      source: "in.mov",
    });
  });
});

describe("a retry", () => {
  it("ends with the first final refusal", async () => {
    const answers = [
      new client.Unavailable("away", { code: "UNAVAILABLE" }),
      new client.RateLimited("slower", {
        code: "RESOURCE_EXHAUSTED",
        reason: "RATE_LIMITED",
        retryAfterMs: 1,
      }),
      new client.IllegalTransition("no", {
        code: "FAILED_PRECONDITION",
        reason: "ILLEGAL_TRANSITION",
      }),
    ];
    let sent = 0;
    const send = async () => {
      throw answers[sent++];
    };
    await assert.rejects(untilFinal(send, { timeoutMs: 10_000 }), client.IllegalTransition);
    assert.equal(sent, 3);
  });

  it("waits as long as the service asks for, and grows", () => {
    const backoff = new Backoff();
    const limited = new client.RateLimited("slower", { retryAfterMs: 1_000 });
    const first = backoff.pauseMs(limited);
    assert.ok(first >= 1_025 && first <= 1_050);
    const second = backoff.pauseMs();
    assert.ok(second >= 50 && second <= 100);
  });
});

describe("a webhook", () => {
  const secret = `whsec_${Buffer.alloc(24, 7).toString("base64")}`;
  const body = JSON.stringify({ type: "operation.completed", timestamp: "", data: { id: "op_1" } });
  const headers = (time = new Date()) => ({
    "Webhook-Id": "msg_1",
    "Webhook-Timestamp": String(Math.floor(time.getTime() / 1000)),
    "Webhook-Signature": new Webhook(secret).sign("msg_1", time, body),
  });

  it("is verified with the secret, or the secrets of a rotation", () => {
    const other = `whsec_${Buffer.alloc(24, 8).toString("base64")}`;
    assert.equal(client.verifyWebhook(body, headers(), secret).data.id, "op_1");
    assert.equal(
      client.verifyWebhook(Buffer.from(body), headers(), [other, secret]).data.id,
      "op_1",
    );
    assert.equal(
      client.verifyWebhook(body, new Headers(headers()), secret).type,
      "operation.completed",
    );
    assert.throws(() => client.verifyWebhook(body, headers(), other), client.NotVerified);
  });

  it("is refused if it is changed, old or unsigned", () => {
    const old = new Date(Date.now() - 600_000);
    assert.throws(() => client.verifyWebhook(`${body} `, headers(), secret), client.NotVerified);
    assert.throws(() => client.verifyWebhook(body, headers(old), secret), client.NotVerified);
    assert.throws(() => client.verifyWebhook(body, {}, secret), client.NotVerified);
    assert.throws(() => client.verifyWebhook(body, headers(), []), TypeError);
  });
});

describe("the context of OpenTelemetry", () => {
  it("travels as headers, if a propagator is registered", () => {
    propagation.setGlobalPropagator({
      inject: (active, carrier, setter) =>
        setter.set(carrier, "traceparent", trace.getSpanContext(active)?.traceId ?? "none"),
      extract: (active) => active,
      fields: () => ["traceparent"],
    });
    assert.deepEqual(traceHeaders(), { traceparent: "none" });
    propagation.disable();
    context.disable();
    assert.deepEqual(traceHeaders(), {});
  });

  it("is that of the create while a handler runs, also after it has waited", async () => {
    const traceId = "0af7651916cd43dd8448eb211c80319c";
    const created = `00-${traceId}-b7ad6b7169203331-01`;
    const current = () => trace.getSpanContext(context.active());
    const found = async (traceparent?: string) =>
      await inTrace(traceparent, async () => {
        await new Promise(setImmediate);
        return current();
      });
    context.setGlobalContextManager(new StoredContext());
    try {
      const [one, other] = await Promise.all([found(created), found()]);
      assert.equal(one?.traceId, traceId);
      assert.deepEqual([one?.spanId, one?.traceFlags], ["b7ad6b7169203331", 1]);
      assert.deepEqual([other, current()], [undefined, undefined]);
      const malformed = ["", created.slice(1), `${created}-more`, `ff${created.slice(2)}`];
      malformed.push(created.replace(traceId, "0".repeat(32)), created.replace("b7", "g7"));
      for (const traceparent of malformed) {
        assert.equal(await found(traceparent), undefined, traceparent);
      }
      assert.equal((await found(`01${created.slice(2)}-more`))?.traceId, traceId);
    } finally {
      context.disable();
    }
  });
});
