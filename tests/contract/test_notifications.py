"""Hints between replicas on PostgreSQL, which may be lost, and what is done then."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa

from milepost.domain.operation import new_operation_id
from milepost.storage.engine import open_engine
from milepost.storage.notifications import MAX_COLLECTED, Notifications
from tests.postgres import PostgresCluster
from tests.waiting import until

WITHIN_S = 1.0
BACK_WITHIN_S = 5.0


class Replica:
    """One who tells and hears."""

    def __init__(self, engine):
        self.notified: list[str] = []
        self.lost = 0
        self.notifications = Notifications(
            engine, on_notification=self.notified.append, on_gap=self._count
        )

    def _count(self):
        self.lost += 1


@asynccontextmanager
async def replicas(engine, count=2):
    """Replicas that hear each other."""
    several = [Replica(engine) for _ in range(count)]
    try:
        await until(lambda: all(replica.lost for replica in several))
        yield several
    finally:
        await asyncio.gather(*(replica.notifications.close() for replica in several))


@pytest.fixture
def database_url(postgres_url):
    """A PostgreSQL database: SQLite is one process, and needs no hints."""
    return postgres_url


def cut(engine):
    """Every session of the database but this one is ended."""
    with engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


async def test_others_hear_what_moved(engine):
    """What moves on one replica is notified by every other within a second, and not by itself."""
    async with replicas(engine, 3) as (first, second, third):
        for _ in range(2):  # the second one comes within the beat of the first
            moved = new_operation_id()
            start = time.monotonic()
            first.notifications.notify(moved)
            await until(lambda: moved in second.notified and moved in third.notified)  # noqa: B023
            assert time.monotonic() - start < WITHIN_S
        assert first.notified == []


async def test_hints_are_merged(engine):
    """Notifications of an operation that changes all the time are coalesced; none is left out."""
    async with replicas(engine) as (first, second):
        busy, others = new_operation_id(), [new_operation_id() for _ in range(MAX_COLLECTED // 2)]
        for _ in range(3):
            for other in others:
                first.notifications.notify(other)
            await until(lambda: not first.notifications._collected)
        for _ in range(MAX_COLLECTED // 2):
            first.notifications.notify(busy)
        await until(lambda: busy in second.notified)
        assert set(second.notified) == {busy, *others}
        assert second.notified.count(busy) <= 2
        assert second.lost == 1


async def test_too_many_to_name_are_a_hint_to_look(engine):
    """When more moves than can be named, the others are told to look at everything."""
    async with replicas(engine) as (first, second):
        for _ in range(MAX_COLLECTED * 3):
            first.notifications.notify(new_operation_id())
        await until(lambda: second.lost > 1)


async def test_cut_connection_is_replaced(engine):
    """A connection that is cut comes back by itself, says that hints were lost, and hears again."""
    async with replicas(engine) as (first, second):
        cut(engine)
        await until(lambda: first.lost > 1 and second.lost > 1, BACK_WITHIN_S)
        moved = new_operation_id()
        first.notifications.notify(moved)
        await until(lambda: moved in second.notified)


async def test_database_that_is_away_harms_nothing():
    """While there is no database moves are told to nobody; when it is back, hints come again."""
    with PostgresCluster(durable=False) as cluster:
        cluster.create_database("hints")
        engine = open_engine(cluster.url("hints"))
        async with replicas(engine) as (first, second):
            await asyncio.to_thread(cluster.stop)
            for _ in range(MAX_COLLECTED * 3):
                first.notifications.notify(new_operation_id())
            lost = second.lost
            await asyncio.to_thread(cluster.start)
            await until(lambda: second.lost > lost, BACK_WITHIN_S)
            moved = new_operation_id()
            first.notifications.notify(moved)
            await until(lambda: moved in second.notified or second.lost > lost + 1)
        cluster.drop_database("hints")
