"""Conversion between messages and plain values: the only module that knows both."""

import math
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf import any_pb2, duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.message import DecodeError, Message
from google.protobuf.message import Error as ProtobufError

from milepost_client.gen.milepost.v1 import operation_pb2 as pb
from milepost_client.gen.milepost.v1 import operation_service_pb2 as service_pb
from milepost_client.operation import (
    Json,
    Operation,
    OperationError,
    OperationEvent,
    RetryPolicy,
    Status,
)
from milepost_client.pace import Duration, seconds

EXACT_INTEGERS: Final = 2**53
"""The bound up to which a JSON number, which is a double, holds every integer exactly."""

MAX_LEVELS: Final = 30
"""The objects and lists in each other that fit into a message. The service accepts fewer."""
MAX_CHECKPOINT_BYTES: Final = 65_536
"""The size of a checkpoint that the service accepts."""
MAX_TYPE_URL_LENGTH: Final = 2_048
"""The length of its type_url that the service accepts."""
MAX_MESSAGE_LENGTH: Final = 65_536
"""The length of a progress message that is sent at all. The service accepts fewer characters, as
its operator says."""
_TOO_DEEP: Final = "the value is nested too deep, or contains itself"

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_PREFIX: Final = "OPERATION_STATUS_"
_STEP_PREFIX: Final = "NEXT_STEP_"


def to_any(value: Json | Message) -> any_pb2.Any | None:
    """Return the result as a packed message, or None for None.

    A JSON value becomes a ``google.protobuf.Value``; another message is packed as it is, and an
    ``Any`` is returned unchanged.

    Raises:
        TypeError: It is neither JSON nor a message.
        ValueError: A number has no exact place in JSON: NaN, an infinity, an integer above 2**53.
            Or the value is nested too deep, or contains itself.
    """
    if value is None or isinstance(value, any_pb2.Any):
        return value
    packed = any_pb2.Any()
    with _converting():
        packed.Pack(value if isinstance(value, Message) else to_value(value))
    return packed


def to_checkpoint(value: Json | Message) -> any_pb2.Any | None:
    """Return the state of a worker as a packed message, or None for None.

    Raises:
        TypeError: It is neither JSON nor a message.
        ValueError: It is too large, or raised by `to_any`.
    """
    packed = to_any(value)
    if packed is not None and (size := len(packed.value)) > MAX_CHECKPOINT_BYTES:
        raise ValueError(f"a checkpoint has at most {MAX_CHECKPOINT_BYTES:,} bytes, not {size:,}")
    if packed is not None and len(packed.type_url) > MAX_TYPE_URL_LENGTH:
        raise ValueError(f"a type_url has at most {MAX_TYPE_URL_LENGTH:,} characters")
    return packed


def to_message(text: str | None) -> str | None:
    """Return the progress message unchanged.

    Raises:
        ValueError: It is too large: on a stream it would end the reports of all operations.
    """
    if text is not None and (length := len(text)) > MAX_MESSAGE_LENGTH:
        raise ValueError(f"a message has at most {MAX_MESSAGE_LENGTH:,} characters, not {length:,}")
    return text


@contextmanager
def _converting() -> Iterator[None]:
    """Raise ValueError for what cannot be nested so deep, and for values whose own code exits."""
    try:
        yield
    except (RecursionError, ProtobufError) as problem:
        raise ValueError(_TOO_DEEP) from problem
    except (SystemExit, GeneratorExit, CancelledError) as problem:
        raise ValueError(f"the value cannot be read: {problem!r}") from problem


def from_any(packed: any_pb2.Any) -> Any:
    """Return the plain value of packed JSON, and anything else, or undecodable, unchanged."""
    plain = _PLAIN.get(packed.TypeName())
    try:
        return packed if plain is None else plain(packed.value)
    except DecodeError:
        return packed


def to_value(value: Json) -> struct_pb2.Value:
    """Return the JSON value as a message. Raises what `to_any` raises."""
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=_number(value))
        case str():
            return struct_pb2.Value(string_value=value)
        case list() | tuple():
            items = struct_pb2.ListValue(values=map(to_value, value))
            return struct_pb2.Value(list_value=items)
        case Mapping():
            return struct_pb2.Value(struct_value=_to_struct(value))
        case _:
            raise TypeError(f"{type(value).__name__} is neither JSON nor a message")


def to_struct(members: Mapping[str, Json]) -> struct_pb2.Struct:
    """Return the JSON object as a message. Raises what `to_any` raises."""
    with _converting():
        if _levels(members) > MAX_LEVELS:  # a message with the Struct could not be decoded
            raise ValueError(_TOO_DEEP)
        return _to_struct(members)


def _levels(value: Json) -> int:
    """Return the number of objects and lists that are nested in each other."""
    match value:
        case Mapping():
            return 1 + max(map(_levels, value.values()), default=0)
        case list() | tuple():
            return 1 + max(map(_levels, value), default=0)
        case _:
            return 0


def _to_struct(members: Mapping[str, Json]) -> struct_pb2.Struct:
    for name in members:
        if not isinstance(name, str):
            raise TypeError(f"the names of a JSON object are text, not {type(name).__name__}")
    return struct_pb2.Struct(fields={name: to_value(value) for name, value in members.items()})


def _number(value: float) -> float:
    if isinstance(value, int) and abs(value) > EXACT_INTEGERS:
        raise ValueError("an integer above 2**53 would lose digits in JSON: send it as text")
    if not math.isfinite(value):
        raise ValueError(f"{value} has no place in JSON")
    return float(value)


def from_value(value: struct_pb2.Value) -> Any:
    """Return the plain value. JSON has one type of number: a whole one is returned as `int`."""
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            whole = number.is_integer() and abs(number) <= EXACT_INTEGERS
            return int(number) if whole else number
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return _from_list(value.list_value)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Return the JSON object as a dict."""
    return {name: from_value(value) for name, value in struct.fields.items()}


def _from_list(items: struct_pb2.ListValue) -> list[Any]:
    return [from_value(value) for value in items.values]


_PLAIN: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "google.protobuf.Value": lambda packed: from_value(struct_pb2.Value.FromString(packed)),
    "google.protobuf.Struct": lambda packed: from_struct(struct_pb2.Struct.FromString(packed)),
    "google.protobuf.ListValue": lambda packed: _from_list(struct_pb2.ListValue.FromString(packed)),
}
"""The message types that hold JSON."""


def to_duration(duration: Duration | None) -> duration_pb2.Duration | None:
    """Return the length of time as a message, or None for None."""
    if duration is None:
        return None
    message = duration_pb2.Duration()
    message.FromTimedelta(timedelta(seconds=seconds(duration)))
    return message


def to_retry_policy(
    initial_backoff: Duration | None, backoff_multiplier: float | None, max_backoff: Duration | None
) -> pb.RetryPolicy | None:
    """Return the pauses between attempts as a message, or None if none is given."""
    if initial_backoff is backoff_multiplier is max_backoff is None:
        return None
    return pb.RetryPolicy(
        initial_backoff=to_duration(initial_backoff),
        backoff_multiplier=backoff_multiplier,
        max_backoff=to_duration(max_backoff),
    )


def to_timestamp(time: datetime | None) -> timestamp_pb2.Timestamp | None:
    """Return the time as a message, or None for None.

    Raises:
        ValueError: The time has no time zone.
    """
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone")
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(time)
    return message


def to_unique_key_policy(policy: str | None) -> service_pb.UniqueKeyPolicy.ValueType:
    """Return the policy as an enum number, UNSPECIFIED for None.

    Raises:
        ValueError: There is no such policy.
    """
    return service_pb.UniqueKeyPolicy.Value(
        f"UNIQUE_KEY_POLICY_{(policy or 'unspecified').upper()}"
    )


def to_statuses(statuses: Iterable[Status]) -> list[pb.OperationStatus.ValueType]:
    """Return the statuses as enum numbers.

    Raises:
        ValueError: One of them is UNKNOWN, which no operation has.
    """
    return [pb.OperationStatus.Value(_PREFIX + Status(status).value) for status in statuses]


def to_errors(errors: Iterable[OperationError]) -> list[pb.OperationError]:
    """Return the errors of a failure as messages. Raises what `to_any` raises."""
    return [
        pb.OperationError(
            code=error.code,
            message=error.message,
            source=error.source,
            details=to_struct(error.details) if error.details else None,
        )
        for error in errors
    ]


def from_operation(
    message: pb.Operation, *, replayed: bool = False, joined: bool = False
) -> Operation:
    """Return the operation as a value."""
    found = {field.name: value for field, value in message.ListFields()}  # one look at presence
    return Operation(
        id=message.id,
        function=message.function,
        version=found.get("version"),
        owner=message.owner,
        metadata=from_struct(message.metadata) if "metadata" in found else {},
        original_request_id=found.get("original_request_id"),
        callback_url=found.get("callback_url"),
        status=_STATUSES.get(message.status, Status.UNKNOWN),  # or one of a newer service
        progress=found.get("progress"),
        progress_message=found.get("progress_message"),
        result=from_any(message.result) if "result" in found else None,
        has_result="result" in found,
        errors=tuple(map(_from_error, message.errors)) if "errors" in found else (),
        revision=message.revision,
        attempt=message.attempt,
        max_attempts=message.max_attempts,
        failed_attempts=message.failed_attempts,
        next_attempt_time=_time(found.get("next_attempt_time")),
        retry_policy=_from_retry_policy(message.retry_policy),
        worker=found.get("worker"),
        checkpoint=from_any(message.checkpoint) if "checkpoint" in found else None,
        priority=message.priority,
        schedule_time=_time(found.get("schedule_time")),
        unique_key=found.get("unique_key"),
        queue_timeout=_timedelta(found.get("queue_timeout")),
        run_timeout=_timedelta(found.get("run_timeout")),
        queue_expire_time=_time(found.get("queue_expire_time")),
        run_expire_time=_time(found.get("run_expire_time")),
        ttl=_to_timedelta(message.ttl),
        retry_after=_to_timedelta(message.retry_after),
        create_time=_to_datetime(message.create_time),
        start_time=_time(found.get("start_time")),
        progress_time=_time(found.get("progress_time")),
        complete_time=_time(found.get("complete_time")),
        cancel_time=_time(found.get("cancel_time")),
        cancel_reason=found.get("cancel_reason"),
        cancel_request_time=_time(found.get("cancel_request_time")),
        cancel_delivered_time=_time(found.get("cancel_delivered_time")),
        cancel_expire_time=_time(found.get("cancel_expire_time")),
        lease_expire_time=_time(found.get("lease_expire_time")),
        expire_time=_to_datetime(message.expire_time),
        traceparent=found.get("traceparent"),
        next_step=_STEPS.get(message.next_step),
        next_step_deadline=_time(found.get("next_step_deadline")),
        replayed=replayed,
        joined=joined,
    )


def from_event(message: service_pb.OperationEvent) -> OperationEvent:
    """Return the event as a value."""
    return OperationEvent(
        revision=message.revision,
        type=message.type,
        transition=message.transition,
        time=_to_datetime(message.time),
        actor=message.actor,
        attempt=message.attempt,
        worker=optional_field(message, "worker"),
        reason=optional_field(message, "reason"),
        errors=tuple(map(_from_error, message.errors)),
    )


def _from_retry_policy(message: pb.RetryPolicy) -> RetryPolicy:
    return RetryPolicy(
        initial_backoff=_to_timedelta(message.initial_backoff),
        backoff_multiplier=message.backoff_multiplier,
        max_backoff=_to_timedelta(message.max_backoff),
    )


_STATUSES: Final[Mapping[int, Status]] = {
    number: Status[name.removeprefix(_PREFIX)]
    for name, number in pb.OperationStatus.items()
    if name.removeprefix(_PREFIX) in Status.__members__
}
_STEPS: Final[Mapping[int, str]] = {
    number: name.removeprefix(_STEP_PREFIX) for name, number in pb.NextStep.items() if number
}


def _from_error(error: pb.OperationError) -> OperationError:
    return OperationError(
        code=error.code,
        message=error.message,
        source=optional_field(error, "source"),
        details=from_struct(error.details),
    )


def optional_field(message: Message, field: str) -> Any:
    """Return the value of a field, or None if it is not set."""
    return getattr(message, field) if message.HasField(field) else None


def time_field(message: Message, field: str) -> datetime | None:
    """Return the time in a field, or None if it is not set."""
    return _to_datetime(getattr(message, field)) if message.HasField(field) else None


def duration_field(message: Message, field: str) -> timedelta | None:
    """Return the length of time in a field, or None if it is not set."""
    return _to_timedelta(getattr(message, field)) if message.HasField(field) else None


def _time(message: timestamp_pb2.Timestamp | None) -> datetime | None:
    return None if message is None else _to_datetime(message)


def _timedelta(message: duration_pb2.Duration | None) -> timedelta | None:
    return None if message is None else _to_timedelta(message)


def _to_datetime(message: timestamp_pb2.Timestamp) -> datetime:
    """Return the time in UTC, several times as fast as `ToDatetime`."""
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)


def _to_timedelta(message: duration_pb2.Duration) -> timedelta:
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)
