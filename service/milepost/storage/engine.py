"""Connections: how each database is opened, and how a prepared statement runs on it.

This is the one place that knows the two databases apart. A `Session` is a held connection that
one thread uses at a time. Hot statements are built once from SQLAlchemy Core, compiled once,
and run on the driver's cursor: compiling and result metadata cost more than the statement
itself (ADR 0002 has the figures).
"""

from __future__ import annotations

import contextlib
import socket
import sqlite3
from typing import TYPE_CHECKING, Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.sql import ColumnElement, Executable
    from sqlalchemy.types import TypeEngine

CONNECT_TIMEOUT_S: Final = 2
"""The least that libpq honours."""
STATEMENT_TIMEOUT_MS: Final = 5_000
"""The server ends what nobody waits for any more; callers are answered long before."""
LOCK_TIMEOUT_MS: Final = 2_000
BUSY_TIMEOUT_MS: Final = 5_000


def open_engine(url: str) -> Engine:
    """Return an engine whose connections are set up for Milepost. Nothing is connected yet."""
    if sa.make_url(url).get_backend_name() == "sqlite":
        return _open_sqlite(url)
    return _open_postgresql(url)


def _open_postgresql(url: str) -> Engine:
    settings = {
        "timezone": "UTC",
        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": "10000",
        "synchronous_commit": "on",
    }
    return sa.create_engine(
        url,
        poolclass=sa.NullPool,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "milepost",
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        },
    )


def _open_sqlite(url: str) -> Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.NullPool,
        # A session moves between threads only while it is opened and closed.
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where the code says so
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that turns into a writer fails without waiting for its turn.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class Cursor(Protocol):
    """What a session needs of a driver's cursor (PEP 249)."""

    @property
    def description(self) -> Any:
        """Nothing, if the last statement returns no rows."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows."""


class Prepared:
    """One statement that runs for many rows of input, compiled once.

    On PostgreSQL the rows arrive as arrays in ``unnest`` and one statement serves them all. On
    SQLite, which has neither arrays nor a network in between, the statement runs once a row
    inside one transaction.
    """

    def __init__(
        self,
        dialect: Dialect,
        inputs: Mapping[str, TypeEngine[Any]],
        build: Callable[[Mapping[str, ColumnElement[Any]]], Executable],
        *,
        singly: bool = False,
    ) -> None:
        """Compile what `build` makes of the named `inputs`; `singly` runs it row by row anyway."""
        self._names = tuple(inputs)
        self._binders = tuple(
            type_.dialect_impl(dialect).bind_processor(dialect) for type_ in inputs.values()
        )
        self._batched = dialect.name == "postgresql" and not singly
        columns = self._arrays(inputs) if self._batched else self._scalars(inputs)
        statement = build(columns)
        compiled = statement.compile(
            dialect=dialect, compile_kwargs={"render_postcompile": True}
        )
        self._sql = str(compiled)
        self._fixed = {
            name: value for name, value in compiled.params.items() if name not in inputs
        }
        self._order: Sequence[str] | None = compiled.positiontup  # type: ignore[attr-defined]

    @staticmethod
    def _scalars(inputs: Mapping[str, TypeEngine[Any]]) -> Mapping[str, ColumnElement[Any]]:
        return {name: sa.bindparam(name, type_=type_) for name, type_ in inputs.items()}

    @staticmethod
    def _arrays(inputs: Mapping[str, TypeEngine[Any]]) -> Mapping[str, ColumnElement[Any]]:
        rows = (
            sa.func.unnest(
                *(
                    sa.bindparam(name, type_=postgresql.ARRAY(type_))
                    for name, type_ in inputs.items()
                )
            )
            .table_valued(*(sa.column(name, type_) for name, type_ in inputs.items()), name="m")
            .render_derived()
        )
        return dict(rows.c)

    def run(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run the statement for `rows`, each with a value for every input; return what it returns."""
        if not self._batched:
            found: list[tuple[Any, ...]] = []
            for row in rows:
                cursor.execute(self._sql, self._parameters(row))
                found += _returned(cursor)
            return found
        columns = zip(self._names, map(list, zip(*rows, strict=True)), strict=True)
        cursor.execute(self._sql, {**self._fixed, **dict(columns)})
        return _returned(cursor)

    def _parameters(self, row: Sequence[Any]) -> Any:
        values = {
            name: binder(value) if binder else value
            for name, binder, value in zip(self._names, self._binders, row, strict=True)
        } | self._fixed
        return values if self._order is None else [values[name] for name in self._order]


def _returned(cursor: Cursor) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description is not None else []


class Session:
    """A held connection, used by one thread at a time; it reconnects after a failure."""

    def __init__(self, engine: Engine, *, pinned_plans: bool = False, read_only: bool = False):
        """Connect at first use.

        Args:
            engine: where to connect.
            pinned_plans: plan every prepared statement once, by primary key: a statement over a
                handful of ids must never turn into a scan because the table was small once.
            read_only: refuse to write.
        """
        self.dialect = engine.dialect
        self._engine = engine
        self._connection: Connection | None = None
        self._setup = _setup(engine.dialect.name, pinned_plans=pinned_plans, read_only=read_only)

    @property
    def cursor(self) -> Cursor:
        """The driver's cursor of the connection, which is opened if there is none."""
        return self._cursor if self._connection is not None else self._connect()

    def _connect(self) -> Cursor:
        # Autocommit: a single statement is its own transaction, others say where they begin.
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        driver: Any = connection.connection.driver_connection
        cursor: Cursor = driver.cursor()
        for statement in self._setup:
            cursor.execute(statement)
        self._connection, self._cursor = connection, cursor
        return cursor

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Commit what happens inside, or none of it."""
        cursor = self.cursor
        cursor.execute("BEGIN" if self.dialect.name == "postgresql" else "BEGIN IMMEDIATE")
        try:
            yield cursor
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")

    def statement(self, prepared: Prepared, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run one statement that is a transaction by itself."""
        if self.dialect.name == "postgresql" or len(rows) == 1:
            return prepared.run(self.cursor, rows)
        with self.transaction() as cursor:
            return prepared.run(cursor, rows)

    def fetch(self, query: Executable) -> list[tuple[Any, ...]]:
        """Run a query that is built anew each time, and return its rows in Python types."""
        self.cursor  # noqa: B018 - connects
        assert self._connection is not None
        return [tuple(row) for row in self._connection.execute(query)]

    def reset(self) -> None:
        """Drop the connection; the next use opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it may be broken already
                connection.invalidate()
                connection.close()

    def abort(self) -> None:
        """End a statement that hangs, from another thread: its socket is shut down under it."""
        connection = self._connection
        if connection is None or self.dialect.name != "postgresql":
            return
        with contextlib.suppress(Exception):  # the connection may be gone this very moment
            driver: Any = connection.connection.driver_connection
            with socket.socket(fileno=driver.pgconn.socket) as sock:
                sock.shutdown(socket.SHUT_RDWR)
                sock.detach()


def _setup(dialect: str, *, pinned_plans: bool, read_only: bool) -> tuple[str, ...]:
    if dialect == "sqlite":
        # Only the writer checkpoints: two connections that do may corrupt the log (fixed in
        # SQLite 3.51.3, and Debian 12 has 3.40).
        return ("PRAGMA wal_autocheckpoint = 0", "PRAGMA query_only = ON") if read_only else ()
    plans = ("enable_seqscan = off", "enable_hashjoin = off", "enable_mergejoin = off")
    return (
        *(f"SET {plan}" for plan in plans if pinned_plans),
        *(("SET plan_cache_mode = force_generic_plan",) if pinned_plans else ()),
        *(("SET default_transaction_read_only = on",) if read_only else ()),
    )

