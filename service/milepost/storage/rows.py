"""Rows of the operations table, and the operations that they hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.interruption import StatusSnapshot
from milepost.domain.operation import Operation, OperationError, Payload, status_of
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    def __init__(self, database: Database) -> None:
        """Find the columns whose driver values need converting."""
        self._conversions = tuple(
            (number, convert)
            for number, column in enumerate(COLUMNS)
            if (convert := database.from_driver(column.type)) is not None
        )

    def operation(self, row: Sequence[Any]) -> Operation:
        """Return the operation of one row as the driver gave it."""
        if self._conversions:
            row = list(row)
            for number, convert in self._conversions:
                row[number] = convert(row[number])
        return operation_from(row)


def operation_from(row: Sequence[Any]) -> Operation:
    """Return the operation of one row of `COLUMNS` in Python types."""
    (
        id_,
        function,
        version,
        owner,
        status,
        progress,
        progress_message,
        progress_time,
        result_type,
        result_value,
        errors,
        metadata,
        original_request_id,
        callback_url,
        create_time,
        start_time,
        complete_time,
        cancel_time,
        expire_time,
        ttl,
        retry_after,
        revision,
        attempt,
        max_attempts,
        worker,
        lease_expire_time,
        trace_context,
        _callback_events,
    ) = row
    return Operation(
        id=id_,
        function=function,
        version=version,
        owner=owner,
        status=status_of(status),
        progress=progress,
        progress_message=progress_message,
        progress_time=progress_time,
        result=None
        if result_type is None
        else Payload(type_url=result_type, value=bytes(result_value)),
        errors=errors_from_json(errors) if errors else (),
        metadata=metadata,
        original_request_id=original_request_id,
        callback_url=callback_url,
        create_time=create_time,
        start_time=start_time,
        complete_time=complete_time,
        cancel_time=cancel_time,
        expire_time=expire_time,
        ttl=ttl,
        retry_after=retry_after,
        revision=revision,
        attempt=attempt,
        max_attempts=max_attempts,
        worker=worker,
        lease_expire_time=lease_expire_time,
        trace_context=trace_context,
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
