"""What the databases give without a server in front: the driver, one statement, and the commit.

The loops run on the core of the servers, as the service's own calls of the driver do, and verify
themselves: every statement must return as many rows as it was given ids.
"""

import itertools
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
import sqlalchemy as sa

from tests.bench.cores import SERVER_CORE, running_on
from tests.bench.databases import Book
from tests.bench.jobs import Tally
from tests.bench.messages import OWNER, PROGRESS, PROGRESS_MESSAGE
from tests.bench.peers.table import create_table, table

_POSTGRES_ONE = """
UPDATE operations
SET progress = greatest(progress, %s), progress_message = %s,
    progress_time = clock_timestamp(), revision = revision + 1
WHERE id = %s AND owner = %s AND status = 'PROCESSING'
RETURNING *
"""

_POSTGRES_BATCH = """
UPDATE operations o
SET progress = greatest(o.progress, m.progress), progress_message = m.message,
    progress_time = clock_timestamp(), revision = o.revision + 1
FROM unnest(%s::float8[], %s::text[], %s::text[], %s::text[]) AS m (progress, message, id, owner)
WHERE o.id = m.id AND o.owner = m.owner AND o.status = 'PROCESSING'
RETURNING o.*
"""

_SQLITE = """
UPDATE operations
SET progress = max(progress, ?), progress_message = ?,
    progress_time = ?, revision = revision + 1
WHERE id = ? AND owner = ? AND status = 'PROCESSING'
RETURNING *
"""

Update = Callable[[Sequence[str]], int]


class PostgresFloor:
    """The conditional update through psycopg, which is the service's driver."""

    def __init__(self, url: str) -> None:
        _create_table(url)
        self.book = Book(url, table)
        plain = sa.make_url(url).set(drivername="postgresql")
        self._connection = psycopg.connect(
            plain.render_as_string(hide_password=False), autocommit=True, prepare_threshold=1
        )
        self._cursor = self._connection.cursor()

    def update(self, ids: Sequence[str]) -> int:
        """One statement for all ids; returns how many rows it changed."""
        if len(ids) == 1:
            self._cursor.execute(_POSTGRES_ONE, (PROGRESS, PROGRESS_MESSAGE, ids[0], OWNER))
        else:
            count = len(ids)
            arrays = (
                [PROGRESS] * count,
                [PROGRESS_MESSAGE] * count,
                sorted(ids),
                [OWNER] * count,
            )
            self._cursor.execute(_POSTGRES_BATCH, arrays)
        return len(self._cursor.fetchall())

    def close(self) -> None:
        """No connection is left."""
        self._connection.close()
        self.book.close()


class SqliteFloor:
    """The conditional update through sqlite3, many in one transaction."""

    def __init__(self, path: Path) -> None:
        url = f"sqlite:///{path}"
        _create_table(url)
        self.book = Book(url, table)
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")

    def update(self, ids: Sequence[str]) -> int:
        """One transaction for all ids; returns how many rows it changed."""
        execute = self._connection.execute
        now = time.time_ns() // 1000
        changed = 0
        execute("BEGIN IMMEDIATE")
        for identity in ids:
            values = (PROGRESS, PROGRESS_MESSAGE, now, identity, OWNER)
            changed += len(execute(_SQLITE, values).fetchall())
        execute("COMMIT")
        return changed

    def close(self) -> None:
        """No connection is left."""
        self._connection.close()
        self.book.close()


def run_floor(update: Update, ids: Sequence[str], batch: int, seconds: float) -> Tally:
    """Update batches of the ids in a random order for `seconds`, on the core of the servers."""
    tally = Tally()
    shuffled = itertools.cycle(random.sample(ids, len(ids)))
    clock = time.perf_counter
    with running_on(SERVER_CORE):
        begun = now = clock()
        while now - begun < seconds:
            given = list(itertools.islice(shuffled, batch))
            changed = update(given)
            since, now = now, clock()
            tally.calls += 1
            tally.jobs += changed
            tally.transitions += changed
            tally.latencies.append(now - since)
            if changed != batch:
                tally.failures["not every row was changed"] += batch - changed
        tally.seconds = now - begun
    return tally


def _create_table(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    create_table(engine)
    engine.dispose()
