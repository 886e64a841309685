/** Durations and times as messages, and back. */
import { create } from "@bufbuild/protobuf";
import {
  type Duration,
  DurationSchema,
  type Timestamp,
  TimestampSchema,
  timestampDate,
} from "@bufbuild/protobuf/wkt";

const NS_PER_MS = 1_000_000;
const MS_PER_S = 1_000;

/**
 * Return the length of time as a message, or undefined for undefined.
 *
 * @throws RangeError if it is not a finite number.
 */
export function toDuration(ms: number | undefined, name: string): Duration | undefined {
  if (ms === undefined) {
    return undefined;
  }
  if (!Number.isFinite(ms)) {
    throw new RangeError(`${name} is ${ms}, and not a number of milliseconds`);
  }
  const seconds = Math.trunc(ms / MS_PER_S);
  return create(DurationSchema, {
    seconds: BigInt(seconds),
    nanos: Math.round((ms - seconds * MS_PER_S) * NS_PER_MS),
  });
}

/** Return the number of milliseconds of the message. */
export function durationToMs(duration: Duration): number {
  return Number(duration.seconds) * MS_PER_S + duration.nanos / NS_PER_MS;
}

/**
 * Return the time as a message, or undefined for undefined.
 *
 * @throws RangeError if it is an invalid Date.
 */
export function toTimestamp(time: Date | undefined, name: string): Timestamp | undefined {
  if (time === undefined) {
    return undefined;
  }
  const ms = time.getTime();
  if (Number.isNaN(ms)) {
    throw new RangeError(`${name} is an invalid Date`);
  }
  const seconds = Math.floor(ms / MS_PER_S);
  return create(TimestampSchema, {
    seconds: BigInt(seconds),
    nanos: (ms - seconds * MS_PER_S) * NS_PER_MS,
  });
}

/** Return the time as a Date, which holds milliseconds, or undefined for undefined. */
export function toDate(time: Timestamp | undefined): Date | undefined {
  return time === undefined ? undefined : timestampDate(time);
}
