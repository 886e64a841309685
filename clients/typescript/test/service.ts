/** A real service for the tests: one Python process, driven by lines of JSON. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));
const PYTHON = process.env.MILEPOST_PYTHON ?? `${ROOT}.venv/bin/python`;

type Facts = Readonly<Record<string, unknown>>;

/** A service on SQLite and free ports of the loopback. */
export class Service implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #asking: Promise<unknown> = Promise.resolve();
  address = "";
  /** The file of its authority, with `--tls`. */
  caFile = "";

  private constructor(process: ChildProcess, lines: AsyncIterator<string>) {
    this.#process = process;
    this.#lines = lines;
  }

  /** Start a service with the limits lifted, unless `--limited` is given. */
  static async start(...options: string[]): Promise<Service> {
    if (!existsSync(PYTHON)) {
      throw new Error(`there is no ${PYTHON}: run make, or set MILEPOST_PYTHON`);
    }
    const child = spawn(PYTHON, ["-m", "tests.conformance.service", ...options], {
      cwd: ROOT,
      stdio: ["pipe", "pipe", "inherit"],
    });
    const service = new Service(child, createInterface(child.stdout)[Symbol.asyncIterator]());
    const started = await service.#read();
    service.address = String(started.address);
    service.caFile = String(started.ca_file);
    return service;
  }

  /** Send a command to the process, and return its result. */
  async ask(command: Facts): Promise<Facts> {
    const result = this.#asking.then(() => {
      this.#process.stdin?.write(`${JSON.stringify(command)}\n`);
      return this.#read();
    });
    this.#asking = result.catch(() => undefined);
    return result;
  }

  /** Create an API key of a new subject. */
  async key(roles: string[] = ["CALLER"], functions: string[] = []): Promise<string> {
    const subject = `${roles[0]}-${randomUUID()}`;
    const result = await this.ask({ do: "key", subject, roles, functions });
    return String(result.key);
  }

  /** Create an API key of a worker for all functions. */
  workerKey(): Promise<string> {
    return this.key(["WORKER"], ["*"]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.stdin?.end();
    await ended;
  }

  async #read(): Promise<Facts> {
    const line = await this.#lines.next();
    if (line.done === true) {
      throw new Error("the service has ended");
    }
    const result = JSON.parse(line.value) as Facts;
    if ("error" in result) {
      throw new Error(String(result.error));
    }
    return result;
  }
}
