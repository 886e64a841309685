/** What the client makes of answers that no service gives. */
import assert from "node:assert/strict";
import { createServer, type ServerHttp2Stream } from "node:http2";
import { describe, it } from "node:test";
import * as client from "../src/index.js";

/** Serve one HTTP/2 stream after the other with the function. */
async function served(
  answer: (stream: ServerHttp2Stream) => void,
  use: (milepost: client.Milepost) => Promise<void>,
): Promise<void> {
  const server = createServer();
  server.on("stream", (stream) => {
    stream.on("error", () => undefined); // the client goes away
    answer(stream);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" ? address?.port : 0;
  await using milepost = new client.Milepost({ address: `127.0.0.1:${port}`, apiKey: "key" });
  try {
    await use(milepost);
  } finally {
    server.close();
  }
}

const garbage = (stream: ServerHttp2Stream) => {
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end(Buffer.from([0, 0, 0, 0, 2, 0xff, 0xff]));
};

const badGateway = (stream: ServerHttp2Stream) => {
  stream.respond({ ":status": 502 });
  stream.end("<html>");
};

describe("an answer", () => {
  it("that cannot be decoded is an error of its own, and not asked for again", async () => {
    let calls = 0;
    const answer = (stream: ServerHttp2Stream) => {
      calls += 1;
      garbage(stream);
    };
    await served(answer, async (milepost) => {
      await assert.rejects(milepost.get("op_1"), client.UndecodableAnswer);
      assert.equal(calls, 1);
    });
  });

  it("of a proxy that has lost the service is asked for again", async () => {
    let calls = 0;
    const answer = (stream: ServerHttp2Stream) => {
      calls += 1;
      (calls < 4 ? badGateway : garbage)(stream);
    };
    await served(answer, async (milepost) => {
      await assert.rejects(milepost.get("op_1"), client.UndecodableAnswer);
      assert.equal(calls, 4);
    });
  });

  it("of a proxy that has lost the service is not asked for again after the deadline", async () => {
    await served(badGateway, async (milepost) => {
      const begin = performance.now();
      // The last try can begin so late that it exceeds the deadline.
      await assert.rejects(
        milepost.get("op_1", { deadlineMs: 500 }),
        (error) => error instanceof client.Unavailable || error instanceof client.DeadlineExceeded,
      );
      assert.ok(performance.now() - begin < 2_500);
    });
  });

  it("that does not come is an exceeded deadline", async () => {
    await served(
      () => undefined,
      async (milepost) => {
        const begin = performance.now();
        await assert.rejects(milepost.get("op_1", { deadlineMs: 200 }), client.DeadlineExceeded);
        assert.ok(performance.now() - begin < 2_000);
      },
    );
  });
});
