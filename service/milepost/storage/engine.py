"""Connections: how each database is opened, and how a prepared statement runs on it.

This is the one place that knows the two databases apart. A `Session` is a held connection that
one thread uses at a time. Hot statements are built once from SQLAlchemy Core, compiled once,
and run on the driver's cursor: compiling and result metadata cost more than the statement
itself (ADR 0002 has the figures).
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from milepost.storage.libpq import PreparedCursor, array
from milepost.storage.translate import is_disconnect, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.sql import ClauseElement, ColumnElement, Executable
    from sqlalchemy.types import TypeEngine

CONNECT_TIMEOUT_S: Final = 2
"""The least that libpq honours."""
STATEMENT_TIMEOUT_MS: Final = 5_000
"""The server ends what nobody waits for any more; callers are answered long before."""
LOCK_TIMEOUT_MS: Final = 2_000
BUSY_TIMEOUT_MS: Final = 5_000
CHECKPOINT_PAGES: Final = 4_000
"""The length of SQLite's log, 16 MiB, at which it is carried over into the database. A page that
was changed again and again meanwhile is carried over once: with the usual 1,000 a write takes 8 %
longer."""


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
        hide_parameters=True,  # they are results and metadata: not for the log
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
        hide_parameters=True,  # they are results and metadata: not for the log
        # A session moves between threads only while it is opened and closed.
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where the code says so
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # What undoes a statement or a savepoint that fails: a tenth of every write, as a file.
        connection.execute("PRAGMA temp_store = MEMORY")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that turns into a writer fails without waiting for its turn.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class Cursor(Protocol):
    """What a session needs of a driver's cursor (PEP 249)."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Sequence[Any], /) -> Any:
        """Run one statement that returns nothing for each set of parameters."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows."""


class Runnable(Protocol):
    """A statement, or several that belong together, which run for many rows of input."""

    def run(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run for `rows`; return the rows that come back."""


def positional(dialect: Dialect) -> Dialect:
    """Return the dialect for statements that run on the cursor of a session: without names."""
    if dialect.name == "sqlite":
        return dialect
    native: Any = type(dialect)
    return cast("Dialect", native(paramstyle="numeric_dollar"))


class Prepared:
    """One statement that runs for many rows of input, compiled once.

    On PostgreSQL several rows arrive as arrays in ``unnest``, and one statement serves them all;
    a single row is a plain statement, which costs less. On SQLite, which has neither arrays nor a
    network in between, the plain statement runs once a row.
    """

    def __init__(
        self,
        dialect: Dialect,
        inputs: Mapping[str, TypeEngine[Any]],
        build: Callable[[Mapping[str, ColumnElement[Any]]], Executable],
    ) -> None:
        """Compile what `build` makes of the named `inputs`."""
        self._plain = _Compiled(dialect, inputs, build(_scalars(inputs)))
        self._batched = (
            _Compiled(dialect, inputs, build(_arrays(inputs)))
            if dialect.name == "postgresql"
            else None
        )

    def run(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run the statement for `rows`, each with a value for every input; return its rows."""
        if self._batched is not None and len(rows) > 1:
            return self._batched.run(cursor, [array(column) for column in zip(*rows, strict=True)])
        return self._plain.run_singly(cursor, rows)


class _Compiled:
    """The text of a statement, and how its parameters are passed to the driver."""

    def __init__(
        self, dialect: Dialect, inputs: Mapping[str, TypeEngine[Any]], statement: Executable
    ) -> None:
        compiled: Any = cast("ClauseElement", statement).compile(
            dialect=positional(dialect), compile_kwargs={"render_postcompile": True}
        )
        self._sql = str(compiled)
        self._returns = statement.is_select or bool(compiled.effective_returning)
        names = tuple(inputs)
        fixed = {name: value for name, value in compiled.params.items() if name not in inputs}
        self._fixed = tuple(fixed.values())
        # Placeholders have no names: this puts the values where the text wants them.
        names += tuple(fixed)
        self._order = [names.index(name) for name in compiled.positiontup]
        binders = (
            (n, type_.dialect_impl(dialect).bind_processor(dialect))
            for n, type_ in enumerate(inputs.values())
        )
        # The cursor on PostgreSQL takes Python values as they are.
        self._binders = [(n, b) for n, b in binders if b is not None and dialect.name == "sqlite"]

    def run(self, cursor: Cursor, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        cursor.execute(self._sql, self._parameters(values))
        return cursor.fetchall() if self._returns else []

    def run_singly(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        if not self._returns:
            cursor.executemany(self._sql, [self._parameters(row) for row in rows])
            return []
        return [found for row in rows for found in self.run(cursor, row)]

    def _parameters(self, values: Sequence[Any]) -> list[Any]:
        parameters = [*values, *self._fixed]
        for n, bind in self._binders:
            parameters[n] = bind(parameters[n])
        return [parameters[n] for n in self._order]


def _scalars(inputs: Mapping[str, TypeEngine[Any]]) -> Mapping[str, ColumnElement[Any]]:
    # Each is cast: PostgreSQL cannot tell the type of a parameter that is NULL.
    return {name: sa.cast(sa.bindparam(name, type_=type_), type_) for name, type_ in inputs.items()}


def _arrays(inputs: Mapping[str, TypeEngine[Any]]) -> Mapping[str, ColumnElement[Any]]:
    rows = (
        sa.func.unnest(
            *(sa.bindparam(name, type_=postgresql.ARRAY(type_)) for name, type_ in inputs.items())
        )
        .table_valued(*(sa.column(name, type_) for name, type_ in inputs.items()), name="m")
        .render_derived()
    )
    return dict(sa.select(rows).cte("m").c)


class Session:
    """A held connection, used by one thread at a time; it reconnects after a failure."""

    def __init__(
        self, engine: Engine, *, pinned_plans: bool = False, read_only: bool = False
    ) -> None:
        """Connect at first use.

        Args:
            engine: where to connect.
            pinned_plans: plan every prepared statement once, by primary key or along an index: a
                statement over a handful of rows must never turn into a scan because the table was
                small once.
            read_only: refuse to write.
        """
        self.dialect = engine.dialect
        self._engine = engine
        self._connection: Connection | None = None
        self._shared = False
        self._read_only = read_only
        self._setup = _setup(engine.dialect.name, pinned_plans=pinned_plans, read_only=read_only)

    @property
    def connection(self) -> Connection:
        """The connection, which is opened if there is none."""
        if self._connection is None:
            # Autocommit: a statement is its own transaction, unless the code says where one begins.
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            driver: Any = connection.connection.driver_connection
            self._cursor: Cursor = (
                PreparedCursor(driver) if self.dialect.name == "postgresql" else driver.cursor()
            )
            for statement in self._setup:
                self._cursor.execute(statement)
            self._connection = connection
        return self._connection

    @property
    def cursor(self) -> Cursor:
        """The driver's cursor of the connection."""
        self.connection  # noqa: B018 - opens it
        return self._cursor

    def transaction(self) -> AbstractContextManager[Cursor]:
        """Commit what happens inside, or none of it."""
        begin = "BEGIN" if self.dialect.name == "postgresql" else "BEGIN IMMEDIATE"
        return self._bracket(begin, "COMMIT", "ROLLBACK")

    def atomic(self) -> AbstractContextManager[Cursor]:
        """Keep what happens inside, or none of it, whatever else shares the commit."""
        return self.savepoint() if self._shared else self.transaction()

    def savepoint(self) -> AbstractContextManager[Cursor]:
        """Keep what happens inside, or none of it, within a transaction."""
        return self._bracket("SAVEPOINT kind", "RELEASE kind", "ROLLBACK TO kind")

    def whole(self) -> AbstractContextManager[Cursor]:
        """Let several runs and reads happen as one, or none of them, wherever this is."""
        if self._shared:
            # A name of its own: what runs inside has savepoints too.
            return self._bracket("SAVEPOINT whole", "RELEASE whole", "ROLLBACK TO whole")
        return self.transaction()

    @contextlib.contextmanager
    def _bracket(self, begin: str, keep: str, undo: str) -> Iterator[Cursor]:
        cursor = self.cursor
        cursor.execute(begin)
        try:
            yield cursor
            cursor.execute(keep)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                cursor.execute(undo)
            raise

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let what happens inside share one commit, where commits are what costs.

        On SQLite all of it is one transaction. On PostgreSQL each statement remains one by
        itself: it holds its locks no longer than it runs, and fails alone.
        """
        if self.dialect.name == "postgresql" or self._read_only:
            yield
            return
        self._shared = True
        try:
            with self.transaction():
                yield
        finally:
            self._shared = False

    def run(self, statement: Runnable, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run a statement for `rows`: for all of them, or for none if it fails."""
        if self.dialect.name == "postgresql":
            return statement.run(self.cursor, rows)
        with self.atomic() as cursor:
            return statement.run(cursor, rows)

    def read(self, prepared: Prepared, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run one statement that only reads, each row as last committed."""
        return prepared.run(self.cursor, rows)

    def fetch(
        self, query: Executable, values: Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a query with its values, and return its rows in Python types."""
        return [tuple(row) for row in self.connection.execute(query, values)]

    def failed(self, error: Exception) -> Exception:
        """Return what `error` means, and drop the connection if it is of no use any more."""
        if is_disconnect(error):
            self.reset()
        return translate(error)

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
            # A descriptor of our own: the driver's must not be closed under it.
            with socket.socket(fileno=os.dup(driver.pgconn.socket)) as sock:
                sock.shutdown(socket.SHUT_RDWR)


def _setup(dialect: str, *, pinned_plans: bool, read_only: bool) -> tuple[str, ...]:
    if dialect == "sqlite":
        # Only the writer checkpoints: two connections that do may corrupt the log (fixed in
        # SQLite 3.51.3, and Debian 12 has 3.40).
        if read_only:
            return ("PRAGMA wal_autocheckpoint = 0", "PRAGMA query_only = ON")
        return (f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",)
    ways = ("seqscan", "bitmapscan", "hashjoin", "mergejoin")
    return (
        *(f"SET enable_{way} = off" for way in ways if pinned_plans),
        *(("SET plan_cache_mode = force_generic_plan",) if pinned_plans else ()),
        *(("SET default_transaction_read_only = on",) if read_only else ()),
    )
