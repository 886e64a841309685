"""Snapshots of removed operations in their deliveries, for webhooks that are still to be sent.

The body of a webhook is built from the operation when it is sent. When the operation is removed
before, each delivery that is not settled keeps the columns that the body needs, as JSON; settled
deliveries are removed with the operation. Only the transitions that remove have this cost.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from milepost.domain.delivery import SETTLED, OperationSnapshot
from milepost.domain.operation import Payload, status_of
from milepost.storage.dialects import Instant
from milepost.storage.rows import errors_from_json
from milepost.storage.tables import deliveries, delivery_attempts, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine

    from milepost.storage.session import AnyRow

    Columns = Mapping[str, ColumnElement[Any]]

_o = operations.c
SNAPSHOT_COLUMNS: Final = (
    _o.function,
    _o.version,
    _o.status,
    _o.result_type,
    _o.result_value,
    _o.errors,
    _o.metadata,
    _o.original_request_id,
    _o.create_time,
    _o.complete_time,
    _o.cancel_time,
    _o.trace_context,
)
"""The columns that `operation_snapshot_from` reads, by name."""
SNAPSHOT_TYPES: Final[Mapping[str, TypeEngine[Any]]] = {
    # The driver of SQLite returns and takes instants as integers.
    column.name: sa.BigInteger() if isinstance(column.type, Instant) else column.type
    for column in SNAPSHOT_COLUMNS
}
_BYTES: Final = frozenset({"result_value"})
_TIMES: Final = frozenset({"create_time", "complete_time", "cancel_time"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PENDING: Final[ColumnElement[str]] = sa.literal_column("'PENDING'")
_SETTLED: Final[Sequence[ColumnElement[str]]] = [
    sa.literal_column(f"'{status}'") for status in sorted(SETTLED)
]
_STATUS: Final[ColumnElement[str]] = sa.func.coalesce(deliveries.c.status, sa.literal_column("''"))
"""The form keeps the planner from the indexes of the status: planned while deliveries are few, the
statement would read all of them once they are many."""


class json_of(FunctionElement[str]):  # noqa: N801 - reads as the SQL function it is
    """A JSON object, as text, of names and values in turn."""

    type = sa.Text()
    inherit_cache = True


@compiles(json_of, "postgresql")
def _json_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_build_object({compiler.process(element.clauses, **kw)})::text"


@compiles(json_of, "sqlite")
def _json_sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_object({compiler.process(element.clauses, **kw)})"


class hex_of(FunctionElement[str]):  # noqa: N801 - reads as the SQL function it is
    """Bytes as hexadecimal digits."""

    type = sa.Text()
    inherit_cache = True


@compiles(hex_of, "postgresql")
def _hex_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return f"encode({compiler.process(element.clauses, **kw)}, 'hex')"


@compiles(hex_of, "sqlite")
def _hex_sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    value = compiler.process(element.clauses, **kw)
    return f"CASE WHEN {value} IS NULL THEN NULL ELSE hex({value}) END"


class microseconds_of(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """An instant as microseconds since 1970."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(microseconds_of, "postgresql")
def _microseconds_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    value = compiler.process(element.clauses, **kw)
    return f"(extract(epoch FROM {value}) * 1000000)::bigint"


@compiles(microseconds_of, "sqlite")
def _microseconds_sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


def snapshot(removed: Columns) -> ColumnElement[str]:
    """Return the SQL for the snapshot of a removed operation, as JSON text."""
    pairs: list[ColumnElement[Any]] = []
    for column in SNAPSHOT_COLUMNS:
        value = removed[column.name]
        if column.name in _BYTES:
            value = hex_of(value)
        elif column.name in _TIMES:
            value = microseconds_of(value)
        pairs += [sa.literal_column(f"'{column.name}'"), value]
    return json_of(*pairs)


# --- statements beside the removal, in any order ---


def _add_snapshots(removed: Columns) -> sa.Update:
    """Store the snapshot in each delivery that is not settled."""
    return (
        sa.update(deliveries)
        .where(
            deliveries.c.operation_id == _id(removed),
            _STATUS == _PENDING,
            deliveries.c.payload.is_(None),
        )
        .values(payload=snapshot(removed))
    )


def _drop_attempts(removed: Columns) -> sa.Delete:
    """Remove the attempts of the deliveries that are settled."""
    settled = sa.select(deliveries.c.id).where(
        deliveries.c.operation_id == _id(removed), _STATUS.in_(_SETTLED)
    )
    return sa.delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(settled))


def _drop_settled(removed: Columns) -> sa.Delete:
    """Remove the deliveries that are settled."""
    return sa.delete(deliveries).where(
        deliveries.c.operation_id == _id(removed), _STATUS.in_(_SETTLED)
    )


def _id(removed: Columns) -> ColumnElement[str]:
    return removed["id"]


STEPS: Final[Sequence[Callable[[Columns], Any]]] = (_add_snapshots, _drop_attempts, _drop_settled)


# --- reading snapshots ---


def operation_snapshot_from(row: AnyRow) -> OperationSnapshot:
    """Return the snapshot of a row that has `SNAPSHOT_COLUMNS`, in Python types."""
    return _operation_snapshot({name: getattr(row, name) for name in SNAPSHOT_TYPES})


def operation_snapshot_from_json(text: str) -> OperationSnapshot:
    """Return the snapshot of its JSON text; see `snapshot`."""
    values = json.loads(text)
    for name in _TIMES:
        if values[name] is not None:
            values[name] = _EPOCH + timedelta(microseconds=values[name])
    for name in _BYTES:
        if values[name] is not None:
            values[name] = base64.b16decode(values[name].upper())
    return _operation_snapshot({name: values[name] for name in SNAPSHOT_TYPES})


def _operation_snapshot(values: dict[str, Any]) -> OperationSnapshot:
    type_url, value = values.pop("result_type"), values.pop("result_value")
    errors = values.pop("errors")
    return OperationSnapshot(
        status=status_of(values.pop("status")),
        result=None if type_url is None else Payload(type_url=type_url, value=bytes(value)),
        errors=errors_from_json(errors) if errors else (),
        **values,
    )
