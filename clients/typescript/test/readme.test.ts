/** The examples of the README, exactly as they stand there. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Service } from "./service.js";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));
const FOLDER = `${PACKAGE}build/readme`;
const CONFIGURATION = {
  extends: "../../tsconfig.json",
  compilerOptions: { rootDir: ".", outDir: ".", declaration: false, declarationMap: false },
  include: ["*.ts"],
  exclude: [],
};
const run = promisify(execFile);

describe("the examples", () => {
  let service: Service;
  before(async () => {
    service = await Service.start();
  });
  after(() => service[Symbol.asyncDispose]());

  it("are accepted by the strict compiler, and see one operation through", async () => {
    mkdirSync(FOLDER, { recursive: true });
    const readme = readFileSync(`${PACKAGE}README.md`, "utf-8");
    for (const [, text = "", name = ""] of readme.matchAll(
      /^```ts\n(\/\/ (\w+)\.ts\n[^`]*(?:`[^`]+`[^`]*)*?)^```$/gm,
    )) {
      writeFileSync(`${FOLDER}/${name}.ts`, text);
    }
    writeFileSync(`${FOLDER}/tsconfig.json`, JSON.stringify(CONFIGURATION));
    await run(process.execPath, [`${PACKAGE}node_modules/typescript/bin/tsc`, "-p", FOLDER]);

    const env = { ...process.env, MILEPOST_ADDRESS: service.address };
    const worker = spawn(process.execPath, [`${FOLDER}/worker.js`], {
      env: { ...env, MILEPOST_API_KEY: await service.workerKey() },
      stdio: "inherit",
    });
    const ended = new Promise((resolve) => worker.once("exit", resolve));
    try {
      const caller = await run(process.execPath, [`${FOLDER}/caller.js`], {
        env: { ...env, MILEPOST_API_KEY: await service.key() },
        timeout: 30_000,
      });
      const lines = caller.stdout.trim().split("\n");
      assert.deepEqual(lines.slice(-2), ["COMPLETED 1", "{ frames: 1200 }"]);
      assert.ok(lines.some((line) => line.startsWith("PROCESSING 0.")));
    } finally {
      worker.kill("SIGTERM");
    }
    assert.equal(await ended, 0);
  });
});
