/** JSON values as messages and back, with everything refused that would change on its way. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type Any,
  AnySchema,
  ListValueSchema,
  NullValue,
  StructSchema,
  type Value,
  ValueSchema,
} from "@bufbuild/protobuf/wkt";

/** A JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | JsonMap;
/** A JSON object. */
export interface JsonMap {
  readonly [name: string]: Json;
}

/** The bound up to which a JSON number, which is a double, holds every integer exactly. */
const EXACT_INTEGERS = 2n ** 53n;
/** The objects and lists in each other that fit into a message. The service accepts fewer. */
const MAX_LEVELS = 30;

const TYPE_PREFIX = "type.googleapis.com/";

/** A value that cannot be sent as JSON, or would not arrive as it is. Nothing was sent. */
export class NotJson extends TypeError {
  override get name(): string {
    return "NotJson";
  }
}

/**
 * Return the value as a packed message, or undefined for undefined.
 *
 * A JSON value becomes a `google.protobuf.Value`: null is a value. An `Any` is returned unchanged.
 *
 * @throws NotJson if it is neither JSON nor a whole `Any`, or holds what JSON cannot: NaN, an infinity,
 *   a bigint beyond 2**53, a lone surrogate, a member `__proto__`; or if it is nested too deep, or contains itself.
 */
export function toAny(value: unknown): Any | undefined {
  if (value === undefined) {
    return value;
  }
  if (isAny(value)) {
    return sendableAny(value);
  }
  return create(AnySchema, {
    typeUrl: TYPE_PREFIX + ValueSchema.typeName,
    value: toBinary(ValueSchema, wrap(copy(value, "", []))),
  });
}

/** Return the plain value of packed JSON, and anything else, or undecodable, unchanged. */
export function fromAny(packed: Any): unknown {
  const name = packed.typeUrl.slice(packed.typeUrl.lastIndexOf("/") + 1);
  try {
    switch (name) {
      case ValueSchema.typeName:
        return fromValue(fromBinary(ValueSchema, packed.value));
      case StructSchema.typeName:
        return fromFields(fromBinary(StructSchema, packed.value).fields);
      case ListValueSchema.typeName:
        return fromBinary(ListValueSchema, packed.value).values.map(fromValue);
      default:
        return packed;
    }
  } catch {
    return packed;
  }
}

/** Return the value as a JSON object of a message. Throws what `toAny` throws. */
export function toStruct(value: unknown, path: string): { [name: string]: JsonValue } {
  const members = plain(value, path);
  if (!isObject(members)) {
    throw new NotJson(`${path} is not a JSON object`);
  }
  return copyMembers(members, path, [members]);
}

/**
 * Refuse lone surrogates in any text of a message, because they would arrive as another character.
 *
 * @throws NotJson
 */
export function requireWellFormed(message: unknown, path: string): void {
  if (typeof message === "string") {
    wellFormed(message, path);
  } else if (typeof message === "object" && message !== null && !ArrayBuffer.isView(message)) {
    for (const [name, member] of Object.entries(message)) {
      wellFormed(name, path);
      requireWellFormed(member, name);
    }
  }
}

/** Return the text if it is Unicode; a lone surrogate would arrive as another character. */
export function wellFormed(text: string, path: string): string {
  if (!text.isWellFormed()) {
    throw new NotJson(`${path || "the value"} holds a lone surrogate, which is not Unicode`);
  }
  return text;
}

type JsonValue = null | boolean | number | string | JsonValue[] | { [name: string]: JsonValue };

function isAny(value: unknown): value is Any {
  return (
    typeof value === "object" &&
    value !== null &&
    "$typeName" in value &&
    value.$typeName === AnySchema.typeName
  );
}

/** Return the `Any` if it is whole: one that cannot be encoded would end a stream for all. */
function sendableAny(value: Any): Any {
  const { typeUrl, value: bytes }: { typeUrl: unknown; value: unknown } = value;
  if (typeof typeUrl !== "string" || !(bytes instanceof Uint8Array)) {
    throw new NotJson("an Any has a typeUrl that is a text, and a value that is a Uint8Array");
  }
  wellFormed(typeUrl, "typeUrl");
  return value;
}

/** Return a deep copy that holds plain JSON alone. */
function copy(value: unknown, path: string, ancestors: readonly object[]): JsonValue {
  const found = plain(value, path);
  switch (typeof found) {
    case "boolean":
      return found;
    case "number":
      if (!Number.isFinite(found)) {
        throw new NotJson(`${at(path)} is ${found}, which has no place in JSON`);
      }
      return found;
    case "bigint":
      return exact(found, path);
    case "string":
      return wellFormed(found, path);
    case "object":
      return copyObject(found, path, ancestors);
    default:
      throw new NotJson(`${at(path)} is of type ${typeof found}, which is not JSON`);
  }
}

function copyObject(value: object | null, path: string, ancestors: readonly object[]): JsonValue {
  if (value === null) {
    return null;
  }
  if (ancestors.length >= MAX_LEVELS || ancestors.includes(value)) {
    throw new NotJson("the value is nested too deep, or contains itself");
  }
  const within = [...ancestors, value];
  if (Array.isArray(value)) {
    return Array.from(value, (item, index) => copy(item, `${path}[${index}]`, within));
  }
  if (!isObject(value)) {
    throw new NotJson(`${at(path)} is a ${nameOf(value)}, which is not JSON`);
  }
  return copyMembers(value, path, within);
}

/** Return the members that are not undefined, as JSON.stringify does. */
function copyMembers(
  value: object,
  path: string,
  ancestors: readonly object[],
): { [name: string]: JsonValue } {
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .map(([name, member]) => [
        sendable(name, path),
        copy(member, path === "" ? name : `${path}.${name}`, ancestors),
      ]),
  );
}

/** Return the name of a member. The messages of this library lose one that is `__proto__`. */
function sendable(name: string, path: string): string {
  if (name === "__proto__") {
    throw new NotJson(`${at(path)} has a member __proto__, which JavaScript cannot hold safely`);
  }
  return wellFormed(name, `a name in ${at(path)}`);
}

/** Return what `toJSON` of the value returns, such as the text of a Date, or the value itself. */
function plain(value: unknown, path: string): unknown {
  if (typeof value === "object" && value !== null && "toJSON" in value) {
    return typeof value.toJSON === "function" ? value.toJSON(path) : value;
  }
  return value;
}

function exact(value: bigint, path: string): number {
  if (value > EXACT_INTEGERS || value < -EXACT_INTEGERS) {
    throw new NotJson(`${at(path)} is beyond 2**53 and would lose digits in JSON: send it as text`);
  }
  return Number(value);
}

/** Return true for an object literal, also of another realm, and false for an instance of a class. */
function isObject(value: unknown): value is object {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return false;
  }
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function nameOf(value: object): string {
  return value.constructor?.name ?? "object";
}

function at(path: string): string {
  return path === "" ? "the value" : path;
}

function wrap(value: JsonValue): Value {
  switch (typeof value) {
    case "boolean":
      return create(ValueSchema, { kind: { case: "boolValue", value } });
    case "number":
      return create(ValueSchema, { kind: { case: "numberValue", value } });
    case "string":
      return create(ValueSchema, { kind: { case: "stringValue", value } });
    default:
      return wrapObject(value);
  }
}

function wrapObject(value: null | JsonValue[] | { [name: string]: JsonValue }): Value {
  if (value === null) {
    return create(ValueSchema, { kind: { case: "nullValue", value: NullValue.NULL_VALUE } });
  }
  if (Array.isArray(value)) {
    const items = create(ListValueSchema, { values: value.map(wrap) });
    return create(ValueSchema, { kind: { case: "listValue", value: items } });
  }
  const fields = Object.fromEntries(
    Object.entries(value).map(([name, member]) => [name, wrap(member)]),
  );
  const struct = create(StructSchema, { fields });
  return create(ValueSchema, { kind: { case: "structValue", value: struct } });
}

function fromValue(value: Value): Json {
  switch (value.kind.case) {
    case "numberValue":
    case "stringValue":
    case "boolValue":
      return value.kind.value;
    case "structValue":
      return fromFields(value.kind.value.fields);
    case "listValue":
      return value.kind.value.values.map(fromValue);
    default:
      return null;
  }
}

function fromFields(fields: Readonly<Record<string, Value>>): JsonMap {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [name, fromValue(value)]),
  );
}
