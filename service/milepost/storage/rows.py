"""Rows of the operations table, and the operations that they hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.interruption import StatusSnapshot
from milepost.domain.operation import Operation, OperationError, Payload, status_of
from milepost.storage.dialects import Instant, Span
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine

_o = operations.c

# In the order of the fields of `Operation`, which is made of one row without naming them.
COLUMNS: Final = (
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
    _o.worker,
    _o.lease_expire_time,
    _o.trace_context,
    _o.callback_events,
)
HEAVY: Final = frozenset({"result_type", "result_value", "errors", "metadata"})
"""The payloads: what may be large."""
SUMMARY_COLUMNS: Final = tuple(
    sa.null().label(column.name) if column.name in HEAVY else column for column in COLUMNS
)
"""The same columns, with the payloads left out and not even read."""


class RowReader:
    """Makes operations of the rows that `COLUMNS` returns."""

    def __init__(self, dialect: Dialect) -> None:
        """Find the columns whose driver values need converting: none on PostgreSQL."""
        self._conversions = tuple(
            (number, convert)
            for number, column in enumerate(COLUMNS)
            if dialect.name == "sqlite"
            and (convert := _conversion(column.type, dialect)) is not None
        )

    def operation(self, row: Sequence[Any]) -> Operation:
        """Return the operation of one row as the driver gave it."""
        if self._conversions:
            row = list(row)
            for number, convert in self._conversions:
                row[number] = convert(row[number])
        return operation_from(row)


def _conversion(type_: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(type_, sa.Double):  # SQLite's RETURNING shows a whole number as an integer
        return lambda value: None if value is None else float(value)
    if isinstance(type_, Instant | Span):  # without the layers that SQLAlchemy puts around it
        return lambda value: type_.process_result_value(value, dialect)
    return None


def operation_from(row: Sequence[Any]) -> Operation:
    """Return the operation of one row of `COLUMNS` in Python types."""
    result_type, errors = row[8], row[10]
    result = None if result_type is None else Payload(type_url=result_type, value=bytes(row[9]))
    return Operation._make(
        (
            *row[:4],
            status_of(row[4]),
            *row[5:8],
            result,
            errors_from_json(errors) if errors else (),
            *row[11:27],
        )
    )


def status_snapshot_from(row: Sequence[Any]) -> StatusSnapshot:
    """Return how the operation of one row of `queries.status_snapshots` stands."""
    operation_id, status, revision, attempt, errors = row
    codes = [error.code for error in errors_from_json(errors)] if errors else []
    return StatusSnapshot(
        id=operation_id,
        status=status_of(status),
        revision=revision,
        attempt=attempt,
        error_code=codes[0] if codes else None,
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
