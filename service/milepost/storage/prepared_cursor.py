"""A cursor on PostgreSQL for a few statements that run often, and the text of arrays."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg

if TYPE_CHECKING:
    from collections.abc import Sequence

_MICROSECOND: Final = timedelta(microseconds=1)


class PreparedCursor:
    """Runs statements with ``$1``, ``$2``, … on one connection, each prepared at its first run.

    Every text stays prepared, so texts must be constants. One thread uses it at a time, and
    releases the interpreter lock while it waits.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Use `connection`, with no statement prepared."""
        connection.prepared_max = None
        self._cursor = psycopg.RawCursor(connection)

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> None:
        """Run one statement.

        Args:
            sql: the text of the statement.
            values: the parameters: str, bytes, int, float, bool, datetime, timedelta or None.

        Raises:
            psycopg.Error: the class of the SQLSTATE.
        """
        text: Any = sql  # the stubs ask for a literal
        self._cursor.execute(text, values or None, prepare=True, binary=True)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]], /) -> None:
        """Run one statement for each row of values; see `execute`."""
        for values in rows:
            self.execute(sql, values)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows of the last statement, which returns some, in Python types, once."""
        return self._cursor.fetchall()


def array(values: Sequence[Any]) -> str:
    """Return the text of a PostgreSQL array (PostgreSQL manual, 8.15.6).

    psycopg's own conversion of a list costs more than the statement itself. Most arrays here
    repeat one value, such as the same owner or no expected revision.
    """
    first = values[0]
    if values.count(first) == len(values):
        return f"{{{','.join([_element(first)] * len(values))}}}"
    return f"{{{','.join(map(_element, values))}}}"


def _element(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'
        case bytes():
            return f'"\\\\x{value.hex()}"'
        case timedelta() | datetime():
            return f'"{_text(value)}"'
        case _:
            return _text(value)


def _text(value: Any) -> str:
    match value:
        case bool():
            return "t" if value else "f"
        case int() | float():
            return repr(value)
        case timedelta():
            return f"{value // _MICROSECOND} microseconds"
        case datetime():
            return value.isoformat()
        case _:
            raise TypeError(type(value))
