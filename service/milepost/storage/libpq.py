"""A cursor on PostgreSQL for a few statements that run often.

psycopg's cursors analyse every statement at each run: its placeholders, whether it runs often
enough to be prepared, and the conversion of each value and column. That is most of the cost of a
statement of one row in the client (ADR 0002). This cursor prepares a statement at its first run,
and determines the conversion of its columns once.
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

    It keeps every text, so texts must be constants. The connection must be in autocommit mode. One
    thread uses it at a time, and releases the interpreter lock while it waits.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Use `connection`, with no statement prepared."""
        self._connection = connection
        self._libpq = connection.pgconn
        self._prepared: dict[str, _Prepared] = {}
        self._rows: list[tuple[Any, ...]] = []

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> None:
        """Run one statement.

        Args:
            sql: the text of the statement.
            values: the parameters: str, bytes, int, float, bool, datetime, timedelta or None.

        Raises:
            psycopg.Error: the class of the SQLSTATE, as from psycopg's own cursors.
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
            raise psycopg.OperationalError(
                str(error)
            )  # not from the server: the connection is lost
        raise error


class _Prepared:
    """A prepared statement, with the conversion of its rows."""

    def __init__(self, name: bytes, connection: psycopg.Connection[Any]) -> None:
        self.name = name
        self._reader = Transformer(connection)
        self._columns: int | None = None

    def read(self, result: PGresult) -> list[tuple[Any, ...]]:
        # A prepared statement has the same columns at every run.
        self._reader.set_pgresult(result, set_loaders=result.nfields != self._columns)
        self._columns = result.nfields
        rows = self._reader.load_rows(0, result.ntuples, tuple)
        self._reader.set_pgresult(None, set_loaders=False)  # frees the rows
        return rows


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


def _parameter(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else _text(value)
    if "\0" in text:  # libpq would truncate the text
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
