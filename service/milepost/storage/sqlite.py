"""SQLite: one writer, no network, and commits that cost more than statements."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from milepost.storage.database import Cursor, Database
from milepost.storage.database_files import DatabaseFiles
from milepost.storage.dialects import Instant, Span
from milepost.storage.writer_lock import WriterLock

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.pool import ConnectionPoolEntry as PoolRecord
    from sqlalchemy.types import TypeEngine

    from milepost.storage.database import Convert
    from milepost.storage.session import Session

BUSY_TIMEOUT_MS: Final = 5_000
CHECKPOINT_PAGES: Final = 4_000
"""Length of the log, 16 MiB, at which a checkpoint copies it to the database. A page that changed
several times is copied once: the default of 1,000 pages makes writes slower."""

FILE_MODE: Final = 0o600
"""Mode of a new file: it has the results and metadata of all owners, and digests of keys."""

_LOCK: Final = "writer_lock"
"""Key of the `WriterLock` in the `info` of a connection."""
_FILES: Final = "database_files"
"""Key of the `DatabaseFiles` in the `info` of a connection."""


def resolved(path: str) -> str:
    """Return the absolute path of a database without symbolic links.

    The files beside the database are then the same ones, whatever name it is opened by. So does
    SQLite: its log is beside the file and not beside the link.
    """
    return os.path.realpath(path)


def open_engine(url: str) -> Engine:
    """Return an engine whose connections are set up for Milepost, without connecting."""
    path = resolved(sa.make_url(url).database or "")
    files = DatabaseFiles(path)
    engine = sa.create_engine(
        sa.make_url(url).set(database=path),
        poolclass=sa.NullPool,
        hide_parameters=True,  # results and metadata must not be logged
        # A session changes threads only when it is opened and closed.
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
    )

    @sa.event.listens_for(engine, "do_connect")
    def _create(*_arguments: object) -> None:
        # The log and the other files beside the database get its mode from SQLite.
        files.require()
        with contextlib.suppress(OSError):  # it exists, or SQLite reports why it cannot
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, FILE_MODE))

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, record: PoolRecord) -> None:
        connection.isolation_level = None  # only the code begins transactions
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # The statement journal, for statements and savepoints that fail: a file would be slower.
        connection.execute("PRAGMA temp_store = MEMORY")
        record.info[_LOCK] = WriterLock(path, BUSY_TIMEOUT_MS / 1000, files)
        record.info[_FILES] = files
        files.opened()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that becomes a writer would fail without waiting for the lock.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.info[_LOCK].__enter__()  # until the connection is closed
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    @sa.event.listens_for(engine, "close")
    def _unlock(_connection: sqlite3.Connection, record: PoolRecord) -> None:
        if lock := record.info.pop(_LOCK, None):
            lock.close()
            files.closed()

    return engine


class Sqlite(Database):
    """SQLite, where a batch is one transaction, with a savepoint for each statement."""

    has_one_writer = True
    writes_in_ctes = False
    has_lateral_joins = False
    has_notifications = False
    has_event_days = False
    max_swept = 100
    max_purged = 10  # each may have 2 MiB, copied to its deliveries
    begin = "BEGIN IMMEDIATE"

    def __init__(self, dialect: Dialect) -> None:
        """See `Database`."""
        super().__init__(dialect)
        self.statement_dialect = dialect

    def session_settings(self, *, pinned_plans: bool, read_only: bool) -> Sequence[str]:  # noqa: ARG002 - plans depend on no settings here
        """See `Database`."""
        # Only writers checkpoint, under their lock: see `writer_lock`.
        if read_only:
            return ("PRAGMA wal_autocheckpoint = 0", "PRAGMA query_only = ON")
        return (f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",)

    def unmet_requirement(self, session: Session, *, allow_data_loss: bool) -> str | None:  # noqa: ARG002 - commits are always durable
        """See `Database`."""
        session.connection.info[_FILES].require()
        path = Path(session.connection.engine.url.database or "")
        if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
            return f"the file system of {path} is read-only: mount it for reading and writing"
        if not all(os.access(each, os.W_OK) for each in (path, path.parent)):
            return f"the user of the service may not write to {path} or its folder"
        return None

    def shares_connections(self, engine: Engine) -> bool:  # noqa: ARG002 - see `Database`
        """Return False: the file is local."""
        return False

    def cursor(self, connection: Any) -> Cursor:
        """See `Database`."""
        cursor: Cursor = connection.cursor()
        return cursor

    def abort(self, connection: Any) -> None:
        """Do nothing: the file is local, and waits for a lock end after `BUSY_TIMEOUT_MS`."""

    def arrays(self, inputs: Mapping[str, TypeEngine[Any]]) -> Mapping[str, ColumnElement[Any]]:  # noqa: ARG002 - see `Database`
        """Return an empty mapping: SQLite has no arrays."""
        return {}

    def array(self, values: Sequence[Any]) -> Any:
        """Raise TypeError: SQLite has no arrays, and `arrays` returns none to be filled."""
        raise TypeError(values)

    def to_driver(self, type_: TypeEngine[Any]) -> Convert | None:
        """Convert as SQLAlchemy does."""
        return type_.dialect_impl(self.dialect).bind_processor(self.dialect)

    def from_driver(self, type_: TypeEngine[Any]) -> Convert | None:
        """Convert times, spans, and doubles: RETURNING gives whole doubles as integers."""
        if isinstance(type_, sa.Double):
            return lambda value: None if value is None else float(value)
        if isinstance(type_, Instant | Span):  # without the wrappers of SQLAlchemy
            return lambda value: type_.process_result_value(value, self.dialect)
        return None

    def insert(self, table: sa.Table) -> sqlite.Insert:
        """See `Database`."""
        return sqlite.insert(table)

    def writing(self, connection: Connection) -> AbstractContextManager[None]:
        """Exclude the writers and checkpoints of all other connections."""
        lock: WriterLock = connection.info[_LOCK]
        return lock

    def lock(self, session: Session, space: int, name: str) -> None:
        """Do nothing: writing transactions already exclude each other."""
