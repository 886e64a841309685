/** A name with several addresses, each of which is a replica. */
import assert from "node:assert/strict";
import { createServer, type Http2Server } from "node:http2";
import { describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { parseAddress } from "../src/address.js";
import { Channel } from "../src/channel.js";
import { OperationService } from "../src/gen/milepost/v1/operation_service_pb.js";

/** Start a server that answers NOT_FOUND to every call, and counts them. */
async function replica(host: string, port: number) {
  const server = createServer();
  const found = { server, port, calls: 0 };
  server.on("stream", (stream) => {
    found.calls += 1;
    stream.on("error", () => undefined);
    stream.respond({ ":status": 200, "content-type": "application/grpc", "grpc-status": "5" });
    stream.end();
  });
  await new Promise<void>((resolve) => server.listen(port, host, resolve));
  const address = server.address();
  found.port = typeof address === "object" && address !== null ? address.port : 0;
  return found;
}

const closed = (server: Http2Server) => new Promise((resolve) => server.close(resolve));

describe("the replicas behind a name", () => {
  it("are used in turn, and one that is away is left out", async () => {
    const first = await replica("127.0.0.1", 0);
    const second = await replica("127.0.0.2", first.port);
    const addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]; // the third has no listener
    const channel = new Channel(parseAddress(`milepost.test:${first.port}`), {
      insecure: true,
      interceptors: [],
      resolve: async () => addresses.map((address) => ({ address, family: 4 })),
    });
    const operations = createClient(OperationService, channel);
    for (let n = 0; n < 20; n += 1) {
      await assert.rejects(operations.getOperation({}), /not_found/);
    }
    assert.ok(first.calls >= 8 && second.calls >= 8, `${first.calls} and ${second.calls} calls`);
    channel.close();
    await Promise.all([closed(first.server), closed(second.server)]);
  });

  it("cannot be reached if the name has no address", async () => {
    const channel = new Channel(parseAddress("milepost.test:7450"), {
      insecure: true,
      interceptors: [],
      resolve: async () => [],
    });
    const operations = createClient(OperationService, channel);
    await assert.rejects(operations.getOperation({}, { timeoutMs: 1_000 }), /unavailable/);
  });

  it("are looked for no longer than the deadline", async () => {
    const channel = new Channel(parseAddress("milepost.test:7450"), {
      insecure: true,
      interceptors: [],
      resolve: () => new Promise(() => undefined),
    });
    const operations = createClient(OperationService, channel);
    await assert.rejects(operations.getOperation({}, { timeoutMs: 100 }), /deadline_exceeded/);
  });
});
