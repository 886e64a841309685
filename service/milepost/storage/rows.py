"""Conversion between rows of the operations table and operations."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.interruption import StatusSnapshot
from milepost.domain.operation import (
    Operation,
    OperationError,
    Payload,
    RetryPolicy,
    status_of,
)
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from milepost.storage.database import Database

_o = operations.c

COLUMNS: Final = (  # in the order in which `operation_from` names them
    _o.id,
    _o.function,
    _o.version,
    _o.owner,
    _o.status,
    _o.progress,
    _o.progress_message,
    _o.progress_time,
    _o.result_type,
    _o.result_value,
    _o.errors,
    _o.metadata,
    _o.original_request_id,
    _o.callback_url,
    _o.create_time,
    _o.start_time,
    _o.complete_time,
    _o.cancel_time,
    _o.expire_time,
    _o.ttl,
    _o.retry_after,
    _o.revision,
    _o.attempt,
    _o.max_attempts,
    _o.failed_attempts,
    _o.next_attempt_time,
    _o.worker,
    _o.lease_expire_time,
    _o.trace_context,
    _o.priority,
    _o.schedule_time,
    _o.unique_key,
    _o.initial_backoff,
    _o.backoff_multiplier,
    _o.max_backoff,
    _o.queue_timeout,
    _o.run_timeout,
    _o.queue_expire_time,
    _o.run_expire_time,
    _o.cancel_request_time,
    _o.cancel_delivered_time,
    _o.cancel_expire_time,
    _o.cancel_reason,
    _o.checkpoint_type,
    _o.checkpoint_value,
    _o.callback_events,
)
HEAVY: Final = frozenset(
    {"result_type", "result_value", "errors", "metadata", "checkpoint_type", "checkpoint_value"}
)
"""The payload columns, which may be large."""
SUMMARY_COLUMNS: Final = tuple(
    sa.null().label(column.name) if column.name in HEAVY else column for column in COLUMNS
)
"""The same columns with NULL for the payloads, which are not read."""


class RowReader:
    """Converts rows of `COLUMNS` to operations."""

    def __init__(self, database: Database) -> None:
        """Find the columns whose driver values need a conversion."""
        self._conversions = tuple(
            (number, convert)
            for number, column in enumerate(COLUMNS)
            if (convert := database.from_driver(column.type)) is not None
        )

    def operation(self, row: Sequence[Any]) -> Operation:
        """Return the operation of one row of driver values."""
        if self._conversions:
            row = list(row)
            for number, convert in self._conversions:
                row[number] = convert(row[number])
        return operation_from(row)


def operation_from(row: Sequence[Any]) -> Operation:
    """Return the operation of one row of `COLUMNS` in Python types."""
    # Without the constructor: its 29 keyword arguments would take longer than all of this.
    operation = object.__new__(Operation)
    (
        operation.id,
        operation.function,
        operation.version,
        operation.owner,
        status,
        operation.progress,
        operation.progress_message,
        operation.progress_time,
        result_type,
        result_value,
        errors,
        operation.metadata,
        operation.original_request_id,
        operation.callback_url,
        operation.create_time,
        operation.start_time,
        operation.complete_time,
        operation.cancel_time,
        operation.expire_time,
        operation.ttl,
        operation.retry_after,
        operation.revision,
        operation.attempt,
        operation.max_attempts,
        operation.failed_attempts,
        operation.next_attempt_time,
        operation.worker,
        operation.lease_expire_time,
        operation.trace_context,
        operation.priority,
        operation.schedule_time,
        operation.unique_key,
        initial_backoff,
        backoff_multiplier,
        max_backoff,
        operation.queue_timeout,
        operation.run_timeout,
        operation.queue_expire_time,
        operation.run_expire_time,
        operation.cancel_request_time,
        operation.cancel_delivered_time,
        operation.cancel_expire_time,
        operation.cancel_reason,
        checkpoint_type,
        checkpoint_value,
        _callback_events,
    ) = row
    operation.status = status_of(status)
    operation.result = None if result_type is None else _payload(result_type, result_value)
    operation.checkpoint = (
        None if checkpoint_type is None else _payload(checkpoint_type, checkpoint_value)
    )
    operation.retry_policy = _retry_policy(initial_backoff, backoff_multiplier, max_backoff)
    operation.errors = errors_from_json(errors) if errors else ()
    return operation


def _payload(type_url: str, value: Any) -> Payload:
    return Payload(type_url=type_url, value=bytes(value))


@functools.lru_cache(maxsize=1_024)
def _retry_policy(
    initial_backoff: timedelta, backoff_multiplier: float, max_backoff: timedelta
) -> RetryPolicy:
    """Return the retry policy of these values: most operations have one of a few."""
    return RetryPolicy(
        initial_backoff=initial_backoff,
        backoff_multiplier=backoff_multiplier,
        max_backoff=max_backoff,
    )


def status_snapshot_from(row: Sequence[Any]) -> StatusSnapshot:
    """Return the status snapshot of one row of `operations.status_snapshots_statement`."""
    operation_id, status, revision, attempt, errors, is_cancel_requested = row
    codes = [error.code for error in errors_from_json(errors)] if errors else []
    return StatusSnapshot(
        id=operation_id,
        status=status_of(status),
        revision=revision,
        attempt=attempt,
        error_code=codes[0] if codes else None,
        is_cancel_requested=bool(is_cancel_requested),
    )


def errors_to_json(errors: Sequence[OperationError]) -> str:
    """Return the stored form of errors, in order."""
    return json.dumps(
        [
            {
                "code": error.code,
                "message": error.message,
                "source": error.source,
                "details": json.loads(error.details) if error.details is not None else None,
            }
            for error in errors
        ]
    )


def errors_from_json(text: str) -> tuple[OperationError, ...]:
    """Return the errors of their stored form."""
    return tuple(
        OperationError(
            code=item["code"],
            message=item["message"],
            source=item["source"],
            details=json.dumps(item["details"]) if item["details"] is not None else None,
        )
        for item in json.loads(text)
    )
