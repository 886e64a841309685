/** A program that performs the commands of tests/conformance/README.md, one a line. */
import { createInterface } from "node:readline";
import { MilepostError, NotVerified } from "../src/index.js";
import { COMMANDS } from "./commands.js";

type Arguments = Readonly<Record<string, unknown>>;

async function perform(args: Arguments): Promise<object> {
  const command = COMMANDS[String(args.call)];
  if (command === undefined) {
    return { id: args.id, unsupported: true };
  }
  try {
    return { id: args.id, ok: await command(args) };
  } catch (error) {
    return { id: args.id, error: describe(error) };
  }
}

function describe(error: unknown): object {
  if (!(error instanceof MilepostError)) {
    const name = error instanceof NotVerified ? "NotVerified" : "Error";
    return { class: name, message: error instanceof Error ? error.message : String(error) };
  }
  return {
    class: error.name,
    reason: error.reason,
    code: error.code ?? null,
    message: error.message,
    metadata: error.metadata,
    violations: error.violations,
    retry_after: error.retryAfterMs === undefined ? null : error.retryAfterMs / 1000,
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  void perform(JSON.parse(line) as Arguments).then((result) => {
    process.stdout.write(`${JSON.stringify(result)}\n`);
  });
}
process.exit(0); // whatever still runs
