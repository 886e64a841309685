"""Domain values to messages, redacted for the principal that reads them."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from google.protobuf import struct_pb2

from milepost.domain.expectation import NextStep, expectation
from milepost.domain.operation import Status, UnknownStatus
from milepost.gen.milepost.v1 import operation_pb2 as pb
from milepost.telemetry import traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

    from google.protobuf import duration_pb2, timestamp_pb2

    from milepost.domain.history import Event
    from milepost.domain.operation import Operation, OperationError, RetryPolicy
    from milepost.domain.transitions import TransitionResult
    from milepost.gen.milepost.v1 import operation_service_pb2 as service_pb

Response = TypeVar("Response", bound="_TransitionResponse")

_STATUS_PREFIX: Final = "OPERATION_STATUS_"
STATUS_NUMBERS: Final[Mapping[Status, pb.OperationStatus.ValueType]] = {
    status: pb.OperationStatus.Value(f"{_STATUS_PREFIX}{status}") for status in Status
}
NEXT_STEP_NUMBERS: Final[Mapping[NextStep, pb.NextStep.ValueType]] = {
    step: pb.NextStep.Value(f"NEXT_STEP_{step}") for step in NextStep
}


class _TransitionResponse(Protocol):
    """Fields that the responses of all transitions share."""

    replayed: bool

    @property
    def operation(self) -> pb.Operation: ...


def fill_result(
    response: Response, result: TransitionResult, viewer: str, *, full: bool = True
) -> Response:
    """Fill the empty `response` with the result of a transition, as `viewer` may read it."""
    fill(response.operation, result.operation, viewer, full=full)
    response.replayed = result.replayed
    return response


_OPTIONAL: Final = (
    "version",
    "progress",
    "progress_message",
    "original_request_id",
    "worker",
    "unique_key",
    "cancel_reason",
)
_TIMES: Final = (
    "progress_time",
    "create_time",
    "start_time",
    "complete_time",
    "cancel_time",
    "expire_time",
    "lease_expire_time",
    "next_attempt_time",
    "schedule_time",
    "queue_expire_time",
    "run_expire_time",
    "cancel_request_time",
    "cancel_delivered_time",
    "cancel_expire_time",
)
_SPANS: Final = ("queue_timeout", "run_timeout")


def fill(message: pb.Operation, operation: Operation, viewer: str, *, full: bool = True) -> None:
    """Fill the empty `message` with `operation`, as `viewer` may read it.

    Only the owner gets the callback URL, without its query. Without `full`, result, errors and
    metadata are omitted. The message is filled inside its response, because protobuf copies a
    message that is assigned to a field.
    """
    message.id = operation.id
    message.function = operation.function
    message.owner = operation.owner
    message.status = _number_of(operation.status)
    message.revision = operation.revision
    message.attempt = operation.attempt
    message.max_attempts = operation.max_attempts
    message.failed_attempts = operation.failed_attempts
    message.priority = operation.priority
    message.retry_policy.MergeFrom(_retry_policy(operation.retry_policy))
    set_duration(message.ttl, operation.ttl)
    set_duration(message.retry_after, operation.retry_after)
    for name in _OPTIONAL:
        if (value := getattr(operation, name)) is not None:
            setattr(message, name, value)
    # A worker would record nothing of its own in a trace that is not sampled.
    created = operation.trace_context
    if created is not None and traceparent.is_sampled(created):
        message.traceparent = created
    _fill_times(message, operation)
    if (expected := expectation(operation)) is not None:
        message.next_step = NEXT_STEP_NUMBERS[expected.step]
        set_timestamp(message.next_step_deadline, expected.deadline)
    if operation.callback_url is not None and operation.owner == viewer:
        message.callback_url = redacted_url(operation.callback_url)
    if full:
        _add_payloads(message, operation)


def fill_event(message: service_pb.OperationEvent, event: Event) -> None:
    """Fill the empty `message` with `event`."""
    message.revision = event.revision
    message.type = event.type
    message.transition = event.transition
    message.actor = event.actor
    message.attempt = event.attempt
    set_timestamp(message.time, event.time)
    for name in ("worker", "reason"):
        if (value := getattr(event, name)) is not None:
            setattr(message, name, value)
    message.errors.extend(error_messages(event.errors))


def _number_of(status: Status | UnknownStatus) -> pb.OperationStatus.ValueType:
    """Return the number of a status; a status that only a newer release knows has none here."""
    if isinstance(status, UnknownStatus):
        return pb.OPERATION_STATUS_UNSPECIFIED
    return STATUS_NUMBERS[status]


def _fill_times(message: pb.Operation, operation: Operation) -> None:
    for name in _TIMES:
        if (instant := getattr(operation, name)) is not None:
            set_timestamp(getattr(message, name), instant)
    for name in _SPANS:
        if (span := getattr(operation, name)) is not None:
            set_duration(getattr(message, name), span)


@functools.lru_cache(maxsize=1_024)
def _retry_policy(policy: RetryPolicy) -> pb.RetryPolicy:
    """Return the message of a retry policy: most operations have one of a few."""
    message = pb.RetryPolicy(backoff_multiplier=policy.backoff_multiplier)
    set_duration(message.initial_backoff, policy.initial_backoff)
    set_duration(message.max_backoff, policy.max_backoff)
    return message


def _add_payloads(message: pb.Operation, operation: Operation) -> None:
    if operation.metadata is not None:
        message.metadata.CopyFrom(_struct(operation.metadata))
    if operation.result is not None:
        message.result.type_url = operation.result.type_url
        message.result.value = operation.result.value
    if operation.checkpoint is not None:
        message.checkpoint.type_url = operation.checkpoint.type_url
        message.checkpoint.value = operation.checkpoint.value
    if operation.errors:
        message.errors.extend(error_messages(operation.errors))


def error_messages(errors: Iterable[OperationError]) -> Iterable[pb.OperationError]:
    """Return the messages of stored errors."""
    return (
        pb.OperationError(
            code=error.code,
            message=error.message,
            source=error.source,
            details=_struct(error.details) if error.details is not None else None,
        )
        for error in errors
    )


@functools.lru_cache(maxsize=16_384)
def redacted_url(callback_url: str) -> str:
    """Return a callback URL without its query, which may hold secrets of the receiver."""
    return urlsplit(callback_url)._replace(query="").geturl()


# Both fill a message inside its parent, because protobuf copies a message that is assigned to a
# field, and each operation has half a dozen of them.
def set_timestamp(message: timestamp_pb2.Timestamp, instant: datetime) -> None:
    """Fill the empty `message` with `instant`."""
    since = instant - _EPOCH
    message.seconds = since.days * _DAY_S + since.seconds
    message.nanos = since.microseconds * 1000


def set_duration(message: duration_pb2.Duration, span: timedelta) -> None:
    """Fill the empty `message` with `span`, which is not negative."""
    message.seconds = span.days * _DAY_S + span.seconds
    message.nanos = span.microseconds * 1000


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S: Final = 86_400


def _struct(text: str) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(json.loads(text))
    return struct
