"""The size of operations and events in an answer: claims and pages take only what fits into one.

Each size is an upper bound of the bytes of the operation as a message. No statement reads a payload
to measure it, except JSON of moderate length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from milepost.domain.pages import ITEM_BYTES, text_bytes

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.compiler import SQLCompiler

    from milepost.domain.operation import Operation

TEXTS: Final = (
    "function",
    "version",
    "owner",
    "progress_message",
    "original_request_id",
    "callback_url",
    "worker",
    "unique_key",
    "cancel_reason",
)
"""The columns of a summary that may be long."""
_JSON: Final = ("metadata", "errors")
_MAX_COUNTED_BYTES: Final = 65_536
"""Length of JSON above which its values are not counted, because that takes too long."""
_VALUE_BYTES: Final = 16
"""Bytes that a value of a Struct takes at most in addition to its JSON text."""
_MARKS: Final = (",", "[", "{")
"""Each value of a JSON text, but the first, follows one of these."""
_GROWTH: Final = 6
"""The factor by which a Struct is at most larger than its JSON text: `0,` takes 11 bytes."""


class text_octets(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """The bytes of a text; 0 for NULL."""

    type = sa.Integer()
    inherit_cache = True


@compiles(text_octets, "postgresql")
def _text_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return f"coalesce(octet_length({compiler.process(element.clauses, **kw)}), 0)"


@compiles(text_octets, "sqlite")
def _text_sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    # The function octet_length is new in SQLite 3.43.
    return f"coalesce(length(CAST({compiler.process(element.clauses, **kw)} AS BLOB)), 0)"


def answer_bytes(table: sa.FromClause) -> ColumnElement[int]:
    """Return the SQL for an upper bound of the bytes of an operation with all its fields."""
    size = _integer(ITEM_BYTES)
    for name in (*TEXTS, "result_type", "checkpoint_type"):
        size += text_octets(table.c[name])
    for name in _JSON:
        size += _struct_bytes(table.c[name])
    # Of a BLOB both databases know the length without a read of its content.
    for name in ("result_value", "checkpoint_value"):
        size += sa.func.coalesce(sa.func.length(table.c[name]), _integer(0))
    return size


def event_bytes(table: sa.FromClause) -> ColumnElement[int]:
    """Return the SQL for an upper bound of the bytes of an event."""
    size = _integer(ITEM_BYTES) + _struct_bytes(table.c.errors)
    for name in ("actor", "reason"):
        size += text_octets(table.c[name])
    return size


def bytes_of(operation: Operation) -> int:
    """Return such a bound for an operation without a result and errors, as claims return them."""
    size = ITEM_BYTES + text_bytes(getattr(operation, name) for name in TEXTS)
    if operation.checkpoint is not None:
        size += text_bytes([operation.checkpoint.type_url]) + len(operation.checkpoint.value)
    if operation.metadata is None:
        return size
    values = 1 + sum(map(operation.metadata.count, _MARKS))
    return size + len(operation.metadata.encode()) + _VALUE_BYTES * values


def _struct_bytes(text: ColumnElement[str]) -> ColumnElement[int]:
    """Return the SQL for an upper bound of the bytes of a JSON text as a Struct."""
    octets = text_octets(text)
    return sa.case(
        (text.is_(None), _integer(0)),
        (
            octets <= _integer(_MAX_COUNTED_BYTES),
            octets + _integer(_VALUE_BYTES) * (_integer(1) + octets - _octets_without_marks(text)),
        ),
        else_=octets * _integer(_GROWTH),
    )


def _octets_without_marks(text: ColumnElement[str]) -> ColumnElement[int]:
    """Return the SQL for the bytes of a JSON text without the marks that separate its values."""
    rest: ColumnElement[str] = text
    for mark in _MARKS:  # three times `replace` takes less than once `translate`
        rest = sa.func.replace(rest, sa.literal_column(f"'{mark}'"), sa.literal_column("''"))
    return text_octets(rest)


def _integer(value: int) -> ColumnElement[int]:
    """Return an integer as part of the SQL, so that statements need no parameter for it."""
    return sa.literal_column(str(value), sa.Integer)
