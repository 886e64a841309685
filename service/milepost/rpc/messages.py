"""Values out: the message of an operation, as its viewer may see it."""

from __future__ import annotations

import functools
import json
import math
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2

from milepost.domain.operation import Status
from milepost.gen.milepost.v1 import operation_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta

    from milepost.domain.operation import Operation, OperationError

_STATUS_PREFIX: Final = "OPERATION_STATUS_"
STATUS_NUMBERS: Final[Mapping[Status, pb.OperationStatus.ValueType]] = {
    status: pb.OperationStatus.Value(f"{_STATUS_PREFIX}{status}") for status in Status
}


def operation_message(operation: Operation, viewer: str, *, full: bool = True) -> pb.Operation:
    """Return the message of an operation. Only its owner sees the callback URL, without query.

    Without `full`, result, errors and metadata are left out.
    """
    message = pb.Operation(
        id=operation.id,
        function=operation.function,
        version=operation.version,
        owner=operation.owner,
        status=STATUS_NUMBERS[operation.status],
        progress=operation.progress,
        progress_message=operation.progress_message,
        progress_time=_timestamp(operation.progress_time),
        original_request_id=operation.original_request_id,
        create_time=_timestamp(operation.create_time),
        start_time=_timestamp(operation.start_time),
        complete_time=_timestamp(operation.complete_time),
        cancel_time=_timestamp(operation.cancel_time),
        expire_time=_timestamp(operation.expire_time),
        ttl=_duration(operation.ttl),
        retry_after=_duration(operation.retry_after),
        revision=operation.revision,
        attempt=operation.attempt,
        max_attempts=operation.max_attempts,
        worker=operation.worker,
        lease_expire_time=_timestamp(operation.lease_expire_time),
    )
    if operation.callback_url is not None and operation.owner == viewer:
        message.callback_url = urlsplit(operation.callback_url)._replace(query="").geturl()
    if full:
        _add_payloads(message, operation)
    return message


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
def _timestamp(instant: datetime | None) -> timestamp_pb2.Timestamp | None:
    if instant is None:
        return None
    return timestamp_pb2.Timestamp(
        seconds=math.floor(instant.timestamp()), nanos=instant.microsecond * 1000
    )


@functools.lru_cache(maxsize=1024)
def _duration(span: timedelta) -> duration_pb2.Duration:
    return duration_pb2.Duration(
        seconds=span.days * 86_400 + span.seconds, nanos=span.microseconds * 1000
    )


def _struct(text: str) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(json.loads(text))
    return struct
