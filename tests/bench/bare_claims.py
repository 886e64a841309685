"""Claims without a server: the statement that every queue on PostgreSQL is made of, and the commit.

Claimers with a connection each, in one process on the core of the servers. It picks the next in the
order of the index, of whichever owner; it records nothing, and tells nobody.
"""

import asyncio
import time
from typing import Any

import psycopg
import sqlalchemy as sa

from tests.bench.cores import SERVER_CORE, running_on
from tests.bench.databases import Book
from tests.bench.jobs import Tally
from tests.bench.messages import CLAIMED, LEASE_SECONDS, OWNER
from tests.bench.peers.table import create_table, table

_CLAIM = """
UPDATE operations
SET status = 'PROCESSING', revision = revision + 1, attempt = attempt + 1, worker = %(worker)s,
    start_time = clock_timestamp(), lease = %(lease)s,
    lease_expire_time = clock_timestamp() + %(lease)s
WHERE id = (
    SELECT id FROM operations
    WHERE status = 'PENDING' AND function = %(function)s AND expire_time >= clock_timestamp()
    ORDER BY owner, create_time, id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING *
"""

Connection = psycopg.AsyncConnection[Any]


class BareClaims:
    """The claimers of one database."""

    def __init__(self, url: str) -> None:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        create_table(engine)
        engine.dispose()
        self.book = Book(url, table)
        plain = sa.make_url(url).set(drivername="postgresql")
        self._url = plain.render_as_string(hide_password=False)

    def claim(self, claimers: int, seconds: float) -> Tally:
        """Let so many claim one operation after the other."""
        with running_on(SERVER_CORE):
            return asyncio.run(self._claim(claimers, seconds))

    async def _claim(self, claimers: int, seconds: float) -> Tally:
        tally = Tally()
        connections = [
            await Connection.connect(self._url, autocommit=True, prepare_threshold=1)
            for _ in range(claimers)
        ]
        begun = time.perf_counter()
        tally.end = begun + seconds
        await asyncio.gather(*(_work(connection, tally) for connection in connections))
        tally.seconds = time.perf_counter() - begun
        for connection in connections:
            await connection.close()
        return tally


async def _work(connection: Connection, tally: Tally) -> None:
    clock = time.perf_counter
    asked = {
        "worker": OWNER,
        "function": CLAIMED,
        "lease": f"{LEASE_SECONDS} seconds",
    }
    now = clock()
    async with connection.cursor() as cursor:
        while now < tally.end:
            await cursor.execute(_CLAIM, asked)
            found = len(await cursor.fetchall())
            since, now = now, clock()
            tally.calls += 1
            tally.jobs += found
            tally.transitions += found
            tally.latencies.append(now - since)
            if not found:
                tally.failures["nothing to claim"] += 1
