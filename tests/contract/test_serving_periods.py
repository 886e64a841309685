"""Leases after an interruption: none is swept before its holder had one full lease to renew it."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.errors import StoreUnavailable
from milepost.domain.sweep import ABANDON, EXPIRE, RELEASE
from milepost.domain.transitions import Transition
from milepost.storage.dialects import Span, clock, later
from milepost.storage.serving_periods import MAX_GAP, RETENTION, is_served
from milepost.storage.tables import serving_periods
from tests import factories
from tests.contract.test_claims import LEASE, WORKER, claim
from tests.contract.test_sweeps import NOTHING, claimed, only, sweep

SECOND = timedelta(seconds=1)
GAP = 4 * MAX_GAP
"""Time without service: an interruption."""


def ago(span):
    """Return the time of the database `span` ago."""
    return later(clock(), sa.literal(-span, Span()))


@pytest.fixture
def serve(stored):
    """A function that replaces the periods of service, each given by its age at start and end."""

    def replace(*periods):
        stored.execute(sa.delete(serving_periods))
        for start, end in periods:
            stored.execute(
                sa.insert(serving_periods).values(start_time=ago(start), end_time=ago(end))
            )

    return replace


@pytest.fixture(params=[RELEASE, ABANDON], ids=["release", "abandon"])
async def lost(request, stores, engine):
    """An operation whose lease ran out a second ago, and the sweep that it waits for."""
    last = request.param is ABANDON
    operation = await claimed(stores, max_attempts=1 if last else 3)
    factories.age(engine, operation.id, LEASE + SECOND)
    return request.param, operation


def test_database_is_served_until_its_last_period_is_over(serve, engine):
    """Only a period that could still be extended counts, and a database without tables has none."""
    serve()
    assert not is_served(engine)
    serve((GAP, MAX_GAP / 5))
    assert is_served(engine)
    serve((10 * GAP, GAP), (GAP, MAX_GAP + SECOND / 10))
    assert not is_served(engine)
    with engine.begin() as connection:
        serving_periods.drop(connection)
    assert not is_served(engine)


async def test_nothing_is_swept_without_service(stores, serve, lost):
    """Without any period, no lease is swept, and the metric counts it as spared."""
    serve()
    assert await sweep(stores) == NOTHING
    assert await stores.sweeps.spared(10) == 1
    due, _ = lost
    assert await stores.sweeps.overdue(due, timedelta(), 10) == 0


async def test_frozen_replica_sweeps_nothing_when_it_wakes(stores, serve, lost):
    """A replica that was frozen sweeps nothing, before and after it has noticed."""
    serve((timedelta(hours=1), GAP))
    assert await sweep(stores) == NOTHING
    gap = await stores.sweeps.note_serving()
    assert GAP <= gap < GAP + timedelta(minutes=1)
    assert await sweep(stores) == NOTHING
    assert await stores.sweeps.spared(10) == 1
    assert lost


async def test_lease_is_swept_after_one_lease_of_service(stores, serve, lost):
    """An unrenewed lease is swept when its holder had one lease since the interruption."""
    due, operation = lost
    before = (timedelta(hours=1), LEASE)
    serve(before, (LEASE - SECOND, timedelta()))
    assert await sweep(stores) == NOTHING
    serve(before, (LEASE, timedelta()))
    assert await stores.sweeps.spared(10) == 0
    assert await sweep(stores) == only(due, operation)


async def test_renewed_lease_counts_from_its_renewal(store, stores, engine, serve):
    """A lease that was renewed after the interruption is swept when it runs out again."""
    operation = await claimed(stores)
    factories.age(engine, operation.id, LEASE + SECOND)
    serve((2 * LEASE, timedelta()))
    renewal = factories.change(Transition.PROGRESS, operation.id, access_filter=WORKER, attempt=1)
    await store.apply(renewal)
    assert await sweep(stores) == NOTHING
    factories.age(engine, operation.id, LEASE + SECOND)
    serve((LEASE + 2 * SECOND, timedelta()))
    assert await sweep(stores) == only(RELEASE, operation)


async def test_each_lease_has_its_own_length(stores, engine, serve):
    """After an interruption, a short lease is swept before a long one."""
    operations_ = []
    for lease in (LEASE / 3, LEASE):
        await factories.create(stores.operations)
        (operation,) = await stores.work.claim(claim(lease=lease))
        factories.age(engine, operation.id, LEASE + SECOND)
        operations_.append(operation)
    serve((LEASE / 2, timedelta()))
    assert await sweep(stores) == only(RELEASE, operations_[0])


async def test_short_periods_add_up(stores, serve, lost):
    """The lease of a dead worker is swept although no period is as long as a lease."""
    due, operation = lost
    third = LEASE / 3
    serve((LEASE, 2 * third + GAP / 2), (2 * third, third + GAP / 2), (third, timedelta()))
    assert await sweep(stores) == NOTHING
    serve((LEASE, 2 * third), (2 * third, third), (third, timedelta()))
    assert await sweep(stores) == only(due, operation)


async def test_period_goes_on_while_one_replica_serves(stores, others, stored, serve):
    """Replicas extend one period together, and a short gap does not end it."""
    serve((timedelta(hours=1), MAX_GAP / 2))
    found = await asyncio.gather(*(s.sweeps.note_serving() for s in (stores, others, stores)))
    assert found == [None, None, None]
    ((start, end),) = periods(stored)
    assert end - start >= timedelta(hours=1)


async def test_first_period_follows_no_interruption(stores, stored, serve):
    """The first period of a database begins without an interruption to report."""
    serve()
    assert await stores.sweeps.note_serving() is None
    assert len(periods(stored)) == 1


async def test_concurrent_replicas_end_an_interruption(stores, others, engine, serve):
    """Replicas that end an interruption together keep no lease from being swept later."""
    serve((timedelta(hours=1), GAP))
    await asyncio.gather(*(s.sweeps.note_serving() for s in (stores, others)))
    (operation,) = [await claimed(stores)]
    factories.age(engine, operation.id, LEASE + SECOND)
    assert await sweep(stores) == only(RELEASE, operation)


async def test_locked_table_is_an_interruption(stores, engine, serve):
    """A replica does not serve while the table of operations is locked as by CREATE INDEX."""
    serve((timedelta(hours=1), SECOND))
    with engine.begin() as connection:  # on SQLite this excludes all writers
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("LOCK TABLE operations IN SHARE MODE"))
        with pytest.raises(StoreUnavailable):
            await stores.sweeps.note_serving()


async def test_old_periods_are_removed(stores, stored, serve):
    """A new period replaces those that no lease can need."""
    serve((RETENTION + 2 * SECOND, RETENTION + SECOND), (RETENTION, RETENTION - SECOND))
    await stores.sweeps.note_serving()
    assert len(periods(stored)) == 2


async def test_expired_operation_is_not_spared(stores, engine, serve):
    """An interruption does not prolong the time to live of an operation."""
    operation = await claimed(stores, ttl=timedelta(hours=1))
    factories.age(engine, operation.id, timedelta(hours=2))
    serve()
    assert await sweep(stores) == only(EXPIRE, operation)
    assert await stores.sweeps.spared(10) == 0


def periods(stored):
    """Return the start and the end of each stored period."""
    query = sa.select(serving_periods).order_by(serving_periods.c.start_time)
    with stored.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]
