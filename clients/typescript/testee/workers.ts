/** Workers whose handlers do what the next command says. */
import {
  CancelRequested,
  type Milepost,
  type Operation,
  PermanentFailure,
  RetryLater,
  type Work,
  Worker,
} from "../src/index.js";
import { Handles } from "./handles.js";

/** A handler that has begun, and waits for its end. */
export interface Held {
  readonly work: Work;
  readonly end: (outcome: { value: unknown } | { problem: unknown }) => void;
}

/** A worker with a queue of the handlers that have begun. */
export class RemoteWorker {
  readonly #worker: Worker;
  readonly #running: Promise<void>;
  readonly #begun: Held[] = [];
  readonly #asking: ((held: Held) => void)[] = [];

  constructor(milepost: Milepost, functions: readonly string[], options: object) {
    const handler = (work: Work) => this.#begin(work);
    this.#worker = new Worker(
      milepost,
      Object.fromEntries(functions.map((name) => [name, handler])),
      options,
    );
    this.#running = this.#worker.run();
    this.#running.catch(() => undefined); // reported by `stop`
  }

  /** Return the next handler that has begun. */
  next(): Promise<Held> {
    const held = this.#begun.shift();
    if (held !== undefined) {
      return Promise.resolve(held);
    }
    return Promise.race([
      new Promise<Held>((resolve) => this.#asking.push(resolve)),
      this.#running.then((): never => {
        throw new Error("the worker has ended");
      }),
    ]);
  }

  async stop(): Promise<void> {
    this.#worker.stop();
    await this.#running;
  }

  async #begin(work: Work): Promise<unknown> {
    const outcome = await new Promise<Parameters<Held["end"]>[0]>((end) => {
      const held = { work, end };
      const asking = this.#asking.shift();
      if (asking === undefined) {
        this.#begun.push(held);
      } else {
        asking(held);
      }
      work.signal.addEventListener("abort", () => end({ problem: work.signal.reason }));
    });
    if ("problem" in outcome) {
      throw outcome.problem;
    }
    return outcome.value;
  }
}

/** Return what the handler of the command throws. */
export function problemOf(work: Work, args: Readonly<Record<string, unknown>>): unknown {
  const message = String(args.message ?? "failed");
  switch (args.kind) {
    case "permanent":
      return new PermanentFailure(
        message,
        args.code === undefined ? {} : { code: String(args.code) },
      );
    case "retry_later":
      return new RetryLater(Number(args.delay) * 1000, message);
    case "acknowledge":
      return work.cancelRequested.reason ?? new CancelRequested("no cancel was requested");
    default:
      return new Error(message);
  }
}

export const WORKERS = new Handles<RemoteWorker>("worker");
export const WORKS = new Handles<Held>("work");
export type { Operation };
