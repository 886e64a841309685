"""Values out: the message of an operation, as its viewer may see it."""

from __future__ import annotations

import functools
import json
import math
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2

from milepost.domain.expectation import NextStep, expectation
from milepost.domain.operation import Status
from milepost.gen.milepost.v1 import operation_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta

    from milepost.domain.operation import Operation, OperationError
    from milepost.domain.ports import Outcome

Moved = TypeVar("Moved", bound="_Moved")

_STATUS_PREFIX: Final = "OPERATION_STATUS_"
STATUS_NUMBERS: Final[Mapping[Status, pb.OperationStatus.ValueType]] = {
    status: pb.OperationStatus.Value(f"{_STATUS_PREFIX}{status}") for status in Status
}
NEXT_STEP_NUMBERS: Final[Mapping[NextStep, pb.NextStep.ValueType]] = {
    step: pb.NextStep.Value(f"NEXT_STEP_{step}") for step in NextStep
}


class _Moved(Protocol):
    """The response of every move."""

    replayed: bool

    @property
    def operation(self) -> pb.Operation: ...


def moved(response: Moved, outcome: Outcome, viewer: str, *, full: bool = True) -> Moved:
    """Return the empty `response` with the operation as a move left it, as `viewer` may see it."""
    fill(response.operation, outcome.operation, viewer, full=full)
    response.replayed = outcome.replayed
    return response


_OPTIONAL: Final = (
    "version",
    "progress",
    "progress_message",
    "original_request_id",
    "worker",
)
_TIMES: Final = (
    "progress_time",
    "create_time",
    "start_time",
    "complete_time",
    "cancel_time",
    "expire_time",
    "lease_expire_time",
)


def fill(message: pb.Operation, operation: Operation, viewer: str, *, full: bool = True) -> None:
    """Say in the empty `message` what `operation` is, as `viewer` may see it.

    Only its owner sees the callback URL, without its query. Without `full`, result, errors and
    metadata are left out. The message is filled where it stands, inside of a response: putting a
    finished one there would copy it.
    """
    message.id = operation.id
    message.function = operation.function
    message.owner = operation.owner
    message.status = STATUS_NUMBERS[operation.status]
    message.revision = operation.revision
    message.attempt = operation.attempt
    message.max_attempts = operation.max_attempts
    message.ttl.CopyFrom(duration_message(operation.ttl))
    message.retry_after.CopyFrom(duration_message(operation.retry_after))
    for name in _OPTIONAL:
        if (value := getattr(operation, name)) is not None:
            setattr(message, name, value)
    for name in _TIMES:
        if (instant := getattr(operation, name)) is not None:
            getattr(message, name).CopyFrom(timestamp_message(instant))
    if (expected := expectation(operation)) is not None:
        message.next_step = NEXT_STEP_NUMBERS[expected.step]
        message.next_step_deadline.CopyFrom(timestamp_message(expected.deadline))
    if operation.callback_url is not None and operation.owner == viewer:
        message.callback_url = shown_url(operation.callback_url)
    if full:
        _add_payloads(message, operation)


def _add_payloads(message: pb.Operation, operation: Operation) -> None:
    if operation.metadata is not None:
        message.metadata.CopyFrom(_struct(operation.metadata))
    if operation.result is not None:
        message.result.type_url = operation.result.type_url
        message.result.value = operation.result.value
    if operation.errors:
        message.errors.extend(_error_messages(operation.errors))


def _error_messages(errors: Iterable[OperationError]) -> Iterable[pb.OperationError]:
    return (
        pb.OperationError(
            code=error.code,
            message=error.message,
            source=error.source,
            details=_struct(error.details) if error.details is not None else None,
        )
        for error in errors
    )


# An operation is shown again and again, and most of its times stay what they were.
@functools.lru_cache(maxsize=16_384)
def shown_url(callback_url: str) -> str:
    """Return a callback URL without its query, in which receivers may keep secrets."""
    return urlsplit(callback_url)._replace(query="").geturl()


def timestamp_message(instant: datetime) -> timestamp_pb2.Timestamp:
    """Return the message of a point in time. It may be shared: copy it, never change it."""
    return timestamp_pb2.Timestamp(
        seconds=math.floor(instant.timestamp()), nanos=instant.microsecond * 1000
    )


@functools.lru_cache(maxsize=1024)
def duration_message(span: timedelta) -> duration_pb2.Duration:
    """Return the message of a duration. It may be shared: copy it, never change it."""
    return duration_pb2.Duration(
        seconds=span.days * 86_400 + span.seconds, nanos=span.microseconds * 1000
    )


def _struct(text: str) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(json.loads(text))
    return struct
