"""The databases of the servers, read by SQL and not through the service."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from tests.bench.cores import LOAD_CORE, pin
from tests.bench.preparation import insert_started
from tests.postgres import PostgresCluster

STARTED = 10_000
"""Number of operations that reads and updates cycle over."""

_POSTGRES_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
_MUST_BE_ON = ("fsync", "synchronous_commit", "full_page_writes")


class NotDurableError(Exception):
    """The database is not durable, so its figures would not be comparable."""


@contextmanager
def postgres_on_load_core() -> Iterator[PostgresCluster]:
    """Start a durable PostgreSQL on the core of the load."""
    with PostgresCluster(durable=True, settings=_POSTGRES_SETTINGS) as cluster:
        pin(cluster.pid, LOAD_CORE)
        _assert_durable(cluster.url("postgres"))
        yield cluster


def _assert_durable(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        for name in _MUST_BE_ON:
            value = connection.scalar(sa.text(f"SHOW {name}"))
            if value != "on":
                raise NotDurableError(f"{name} is {value}")


class Book:
    """The table of one server, and the operations inserted there for the measurements."""

    def __init__(self, url: str, table: sa.Table) -> None:
        self._table = table
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _leave_the_log_alone)
        self.started: Sequence[str] = ()
        """Operations that stay in PROCESSING."""
        self._to_complete: deque[str] = deque()

    def open(self, started: int = STARTED) -> None:
        """Insert the operations to read and to update."""
        self.started = self._insert(started)
        with self._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(sa.text("ANALYZE"))

    def stock(self, count: int) -> None:
        """Have at least `count` operations to complete."""
        missing = count - len(self._to_complete)
        if missing > 0:
            self._to_complete.extend(self._insert(missing))

    def take(self) -> str:
        """Return an operation to complete, each only once."""
        return self._to_complete.popleft()

    def revisions(self) -> int:
        """Return the sum of all revisions; every committed transition raises it by one."""
        total = sa.select(sa.func.coalesce(sa.func.sum(self._table.c.revision), 0))
        with self._engine.connect() as connection:
            return int(connection.scalar(total) or 0)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _insert(self, count: int) -> list[str]:
        with self._engine.begin() as connection:
            return insert_started(connection, self._table, count)


def _leave_the_log_alone(connection: Any, _record: object) -> None:
    # The server checkpoints; two processes that do may corrupt the log of an old SQLite.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA synchronous = FULL")


def filesystem(path: Path) -> str:
    """Return the type of the file system that holds `path`; on tmpfs a flush is free."""
    mounts = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    found = next((step for step in (path, *path.parents) if step in mounts), None)
    return mounts[found] if found else "unknown"
