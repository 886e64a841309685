"""Rows of the operations table: every column reaches the field of its name."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from milepost.domain.operation import Operation, OperationError, Payload, RetryPolicy, Status
from milepost.storage.dialects import Instant, Span
from milepost.storage.rows import COLUMNS, errors_to_json, operation_from

ERROR = OperationError(code="E", message="broken")
SPECIAL = {
    "status": Status.FAILED.value,
    "result_type": "type.googleapis.com/x",
    "result_value": b"bytes",
    "errors": errors_to_json([ERROR]),
    "checkpoint_type": "type.googleapis.com/y",
    "checkpoint_value": b"state",
}


def value_of(number: int, column: sa.Column[object]) -> object:
    """A value of the column's type that no other column has."""
    if column.name in SPECIAL:
        return SPECIAL[column.name]
    if isinstance(column.type, Instant):
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    if isinstance(column.type, Span):
        return timedelta(hours=number)
    return f"text {number}" if isinstance(column.type, sa.Text) else number


def test_every_column_reaches_its_field():
    """An operation has each value of its row in the field that the column is named after."""
    row: dict[str, Any] = {column.name: value_of(n, column) for n, column in enumerate(COLUMNS)}
    expected = row | {
        "status": Status.FAILED,
        "result": Payload(type_url="type.googleapis.com/x", value=b"bytes"),
        "errors": (ERROR,),
        "checkpoint": Payload(type_url="type.googleapis.com/y", value=b"state"),
        "retry_policy": RetryPolicy(
            initial_backoff=row["initial_backoff"],
            backoff_multiplier=row["backoff_multiplier"],
            max_backoff=row["max_backoff"],
        ),
    }
    operation = operation_from(list(row.values()))
    for field in dataclasses.fields(Operation):
        assert getattr(operation, field.name) == expected[field.name], field.name
