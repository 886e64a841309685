"""A cursor on PostgreSQL for few statements that run all the time.

psycopg's cursors look at every statement anew: which placeholders it has, whether it runs often
enough to be prepared, how each value is written and each column read. That is four fifths of what a
statement of one row costs its client (ADR 0002). Here a statement is prepared when it first
runs, and how to read its rows is found out once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.pq.abc import PGresult

_DONE: Final = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})
_MICROSECOND: Final = timedelta(microseconds=1)


class PreparedCursor:
    """Runs statements with ``$1``, ``$2``, … on one connection, each prepared under its text.

    It remembers every text: they must be constants. The connection must be in autocommit mode;
    one thread uses it at a time, and waits without the interpreter lock.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Prepare nothing yet."""
        self._connection = connection
        self._libpq = connection.pgconn
        self._prepared: dict[str, _Prepared] = {}
        self._rows: list[tuple[Any, ...]] = []

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> None:
        """Run one statement.

        Args:
            sql: its text.
            values: of its parameters: texts, bytes, numbers, truth values, times, spans, nothing.

        Raises:
            psycopg.Error: by SQLSTATE, as psycopg's own cursors do.
        """
        prepared = self._prepared.get(sql)
        if prepared is None:
            prepared = self._prepare(sql)
        parameters: Any = [_parameter(value) for value in values]
        formats = [type(value) is bytes for value in values]  # 1 is binary, 0 is text
        result = self._libpq.exec_prepared(prepared.name, parameters, formats, Format.BINARY)
        self._check(result)
        self._rows = prepared.read(result)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]], /) -> None:
        """Run one statement for each row of values; see `execute`."""
        for values in rows:
            self.execute(sql, values)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows of the last statement, in Python types, once."""
        rows, self._rows = self._rows, []
        return rows

    def _prepare(self, sql: str) -> _Prepared:
        name = f"milepost_{len(self._prepared)}".encode()
        self._check(self._libpq.prepare(name, sql.encode()))
        prepared = self._prepared[sql] = _Prepared(name, self._connection)
        return prepared

    def _check(self, result: PGresult) -> None:
        if result.status in _DONE:
            return
        error = psycopg.errors.error_from_result(result)
        if error.sqlstate is None and self._libpq.status == ConnStatus.BAD:
            raise psycopg.OperationalError(str(error))  # not the server says so: it is gone
        raise error


class _Prepared:
    """A statement that the server knows, and how its rows are read."""

    def __init__(self, name: bytes, connection: psycopg.Connection[Any]) -> None:
        self.name = name
        self._reader = Transformer(connection)
        self._columns: int | None = None

    def read(self, result: PGresult) -> list[tuple[Any, ...]]:
        # A prepared statement has the same columns whenever it runs.
        self._reader.set_pgresult(result, set_loaders=result.nfields != self._columns)
        self._columns = result.nfields
        rows = self._reader.load_rows(0, result.ntuples, tuple)
        self._reader.set_pgresult(None, set_loaders=False)  # it need not keep all rows
        return rows


def array(values: Sequence[Any]) -> str:
    """Return the text of a PostgreSQL array (PostgreSQL manual, 8.15.6).

    psycopg's own way through a list costs more than the statement that the array is for. Most
    arrays here repeat one value: the same owner, no expected revision.
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


def _parameter(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else _text(value)
    if "\0" in text:  # libpq would end the text there
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return text.encode()


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
