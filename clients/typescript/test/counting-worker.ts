/** A worker that counts to 100 and saves where it is, for the test that kills it. */
import { Milepost, Worker } from "../src/index.js";

const {
  MILEPOST_ADDRESS: address = "",
  MILEPOST_API_KEY: apiKey,
  FUNCTION: name = "",
} = process.env;
const milepost = new Milepost({ address, apiKey });
const worker = new Worker(
  milepost,
  {
    [name]: async (work) => {
      const begun = Number(work.resumedFrom ?? 0);
      for (let n = begun + 1; n <= 100; n += 1) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        await work.checkpoint(n, n / 100);
      }
      return { begun };
    },
  },
  { leaseMs: 5_000 },
);
await worker.run({ handleSignals: true });
