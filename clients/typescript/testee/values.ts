/** The JSON of the testee: what JSON cannot hold, and the operations of the client, as plain JSON. */
import { create } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";

type Plain = Readonly<Record<string, unknown>>;

/** Return the value that the JSON of a command stands for. */
export function decode(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map(decode);
  }
  if (typeof value !== "object" || value === null) {
    return value;
  }
  const [name] = Object.keys(value);
  const content = (value as Plain)[name ?? ""];
  switch (name) {
    case "$integer":
      return BigInt(String(content));
    case "$number":
      return Number(content);
    case "$utf16":
      return String.fromCharCode(...(content as number[]));
    case "$cycle": {
      const cycle: unknown[] = [];
      cycle.push(cycle);
      return cycle;
    }
    case "$unserialisable":
      return () => undefined;
    case "$any": {
      const { type_url: typeUrl, value: bytes } = content as { type_url: string; value: string };
      return create(AnySchema, { typeUrl, value: new Uint8Array(Buffer.from(bytes, "base64")) });
    }
    default:
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, decode(each)]));
  }
}

/** Return a value of the client as JSON: names in snake case, durations in seconds. */
export function encode(value: unknown): unknown {
  if (value instanceof Date) {
    return value.toISOString();
  }
  if (Array.isArray(value)) {
    return value.map(encode);
  }
  return typeof value === "object" && value !== null ? encodeObject(value) : value;
}

/** The members whose content is data of the user. */
const DATA = new Set(["metadata", "result", "checkpoint", "details"]);

/** The members that are left out when they are empty. */
const LEFT_OUT_EMPTY = new Set(["metadata", "details", "errors"]);

const isEmpty = (value: object) => Object.keys(value).length === 0;

function encodeObject(value: object): Plain {
  const members = Object.entries(value).filter(
    ([name, member]) => member !== undefined && !(LEFT_OUT_EMPTY.has(name) && isEmpty(member)),
  );
  return Object.fromEntries(
    members.map(([name, member]) => {
      if (name.endsWith("Ms")) {
        return [snake(name.slice(0, -2)), Number(member) / 1000];
      }
      return [snake(name), DATA.has(name) ? data(member) : encode(member)];
    }),
  );
}

/** Return data of the user, or the message that holds it. */
export function data(value: unknown): unknown {
  if (typeof value === "object" && value !== null && "$typeName" in value) {
    const { typeUrl, value: bytes } = value as unknown as Any;
    return { $any: { type_url: typeUrl, value: Buffer.from(bytes).toString("base64") } };
  }
  return value;
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** The names that differ from those of the commands by more than their case. */
const RENAMED: Plain = {
  callback_url: "callbackUrl",
  created_from: "createdFrom",
};
const DURATIONS = new Set([
  ..."ttl retry_after queue_timeout run_timeout grace timeout lease delay retry_delay deadline".split(
    " ",
  ),
  ..."initial_backoff max_backoff".split(" "),
]);
const TIMES = new Set(["schedule_time", "created_from", "created_before"]);

/** Return the arguments of a command as options of the client. */
export function toOptions(args: Plain): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(args).map(([name, value]) => {
      const camel = String(
        RENAMED[name] ?? name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase()),
      );
      if (DURATIONS.has(name)) {
        return [`${camel}Ms`, Number(value) * 1000];
      }
      if (TIMES.has(name)) {
        return [camel, new Date(String(value))];
      }
      if (name === "retry_policy") {
        return [camel, toOptions(value as Plain)];
      }
      return [camel, name === "unique_key_policy" ? String(value).toLowerCase() : decode(value)];
    }),
  );
}
