"""SQLite: one writer, no network in between, and a commit that costs more than a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from milepost.storage.database import Cursor, Database
from milepost.storage.dialects import Instant, Span

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.types import TypeEngine

    from milepost.storage.database import Convert
    from milepost.storage.session import Session

BUSY_TIMEOUT_MS: Final = 5_000
CHECKPOINT_PAGES: Final = 4_000
"""The length of the log, 16 MiB, at which it is carried over into the database. A page that was
changed again and again meanwhile is carried over once: with the usual 1,000 a write takes 8 %
longer."""


def open_engine(url: str) -> Engine:
    """Return an engine whose connections are set up for Milepost. Nothing is connected yet."""
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


class Sqlite(Database):
    """A batch is one transaction, with a savepoint around each statement of many rows."""

    has_one_writer = True
    writes_in_ctes = False
    has_lateral_joins = False
    has_notifications = False
    max_purged = 10  # one may have 2 MiB, on its way to its deliveries
    begin = "BEGIN IMMEDIATE"

    def __init__(self, dialect: Dialect) -> None:
        """See `Database`."""
        super().__init__(dialect)
        self.statement_dialect = dialect

    def session_settings(self, *, pinned_plans: bool, read_only: bool) -> Sequence[str]:  # noqa: ARG002 - plans depend on no settings here
        """See `Database`."""
        # Only the writer checkpoints: two connections that do may corrupt the log (fixed in
        # SQLite 3.51.3, and Debian 12 has 3.40).
        if read_only:
            return ("PRAGMA wal_autocheckpoint = 0", "PRAGMA query_only = ON")
        return (f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",)

    def cursor(self, connection: Any) -> Cursor:
        """See `Database`."""
        cursor: Cursor = connection.cursor()
        return cursor

    def abort(self, connection: Any) -> None:
        """Do nothing: the file is local, and a lock is waited for `BUSY_TIMEOUT_MS` at most."""

    def arrays(self, inputs: Mapping[str, TypeEngine[Any]]) -> Mapping[str, ColumnElement[Any]]:  # noqa: ARG002 - see `Database`
        """Return nothing: there are no arrays."""
        return {}

    def array(self, values: Sequence[Any]) -> Any:
        """Raise: there are no arrays."""
        raise NotImplementedError(values)

    def to_driver(self, type_: TypeEngine[Any]) -> Convert | None:
        """Convert as SQLAlchemy does."""
        return type_.dialect_impl(self.dialect).bind_processor(self.dialect)

    def from_driver(self, type_: TypeEngine[Any]) -> Convert | None:
        """Convert times, spans, and whole numbers, which RETURNING shows as integers."""
        if isinstance(type_, sa.Double):
            return lambda value: None if value is None else float(value)
        if isinstance(type_, Instant | Span):  # without the layers that SQLAlchemy puts around it
            return lambda value: type_.process_result_value(value, self.dialect)
        return None

    def insert(self, table: sa.Table) -> sqlite.Insert:
        """See `Database`."""
        return sqlite.insert(table)

    def lock(self, session: Session, space: int, name: str) -> None:
        """Do nothing: every transaction that writes is alone."""
