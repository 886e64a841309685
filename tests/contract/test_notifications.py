"""Notifications between replicas on PostgreSQL, and their loss."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa

from milepost.domain.operation import new_operation_id
from milepost.storage.engine import open_engine
from milepost.storage.notifications import MAX_COLLECTED, Notifications
from tests.machine import slowdown
from tests.postgres import PostgresCluster
from tests.waiting import until

WITHIN_S = 1.0
BACK_WITHIN_S = 5.0


class Replica:
    """A replica that sends and receives notifications."""

    def __init__(self, engine):
        self.notified: list[str] = []
        self.gaps = self.interruptions = 0
        self.notifications = Notifications(
            engine,
            on_notification=self.notified.append,
            on_gap=self._count,
            on_interruption=self._note,
        )

    def _count(self):
        self.gaps += 1

    def _note(self):
        self.interruptions += 1


@asynccontextmanager
async def replicas(engine, count=2):
    """Return replicas that receive the notifications of each other."""
    group = [Replica(engine) for _ in range(count)]
    try:
        await until(lambda: all(replica.gaps for replica in group))
        yield group
    finally:
        await asyncio.gather(*(replica.notifications.close() for replica in group))


@pytest.fixture
def database_url(postgres_url):
    """The URL of a PostgreSQL database: SQLite has one process, without notifications."""
    return postgres_url


def cut(engine):
    """End every other session of the database."""
    with engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


async def test_others_hear_what_moved(engine):
    """A change on one replica reaches every other within a second, and not itself."""
    async with replicas(engine, 3) as (first, second, third):
        for _ in range(2):  # the second one comes within SEND_INTERVAL_S of the first
            changed = new_operation_id()
            start = time.monotonic()
            first.notifications.notify(changed)
            await until(lambda: changed in second.notified and changed in third.notified)  # noqa: B023
            assert time.monotonic() - start < WITHIN_S * slowdown()
        assert first.notified == []


async def test_hints_are_merged(engine):
    """Notifications of an operation that changes often are coalesced; no operation is left out."""
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
        assert second.gaps == 1


async def test_too_many_to_name_are_a_hint_to_look(engine):
    """More changes than MAX_COLLECTED make the other replicas poll."""
    async with replicas(engine) as (first, second):
        for _ in range(MAX_COLLECTED * 3):
            first.notifications.notify(new_operation_id())
        await until(lambda: second.gaps > 1)


async def test_cut_connection_is_replaced(engine):
    """A lost connection is noted, reopened, reports a gap, and receives notifications again."""
    async with replicas(engine) as (first, second):
        cut(engine)
        await until(lambda: first.gaps > 1 and second.gaps > 1, BACK_WITHIN_S)
        assert first.interruptions >= 1
        changed = new_operation_id()
        first.notifications.notify(changed)
        await until(lambda: changed in second.notified)


async def test_database_that_is_away_harms_nothing():
    """While the database is away changes are dropped; after its return notifications arrive."""
    with PostgresCluster(durable=False) as cluster:
        cluster.create_database("notifications")
        engine = open_engine(cluster.url("notifications"))
        async with replicas(engine) as (first, second):
            await asyncio.to_thread(cluster.stop)
            for _ in range(MAX_COLLECTED * 3):
                first.notifications.notify(new_operation_id())
            gaps = second.gaps
            await asyncio.to_thread(cluster.start)
            await until(lambda: second.gaps > gaps, BACK_WITHIN_S)
            changed = new_operation_id()
            first.notifications.notify(changed)
            await until(lambda: changed in second.notified or second.gaps > gaps + 1)
        cluster.drop_database("notifications")
