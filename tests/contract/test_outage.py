"""Outages: calls fail within a second while the database is away, and work after its return."""

import asyncio
import time
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from milepost.domain.errors import StoreUnavailable
from milepost.domain.operation import new_operation_id
from milepost.domain.selection import Selection
from milepost.domain.transitions import Transition, TransitionResult
from milepost.storage.batchers import Batchers
from milepost.storage.batching import QUEUE_TIMEOUT_S
from milepost.storage.engine import open_engine
from milepost.storage.schema import upgrade
from milepost.storage.stores import Stores
from tests import factories
from tests.contract.stored import Stored, answers
from tests.machine import slowdown
from tests.postgres import PostgresCluster

FAILS_WITHIN_S = 1.0
BACK_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def cluster():
    """A PostgreSQL cluster that only these tests use, and stop."""
    with PostgresCluster(durable=False) as cluster:
        cluster.create_database("outage")
        upgrade(cluster.url("outage"))
        yield cluster


@pytest.fixture
def database_url(cluster):
    """The database of the cluster."""
    return cluster.url("outage")


@pytest.fixture
def queue_timeout_s():
    """The default time that a call waits for the database."""
    return QUEUE_TIMEOUT_S


def frozen(cluster):
    """Freeze the sessions of the server, which neither result nor end."""
    return cluster.frozen(whole=False)


def unreachable(cluster):
    """Freeze the whole server: it accepts connections and never answers."""
    return cluster.frozen()


@contextmanager
def killed(cluster):
    """Kill the server."""
    cluster.kill()
    try:
        yield
    finally:
        cluster.start()


@contextmanager
def stopped(cluster):
    """Stop the server in an orderly way."""
    cluster.stop()
    try:
        yield
    finally:
        cluster.start()


def every_kind(stores, operation):
    """Return functions that make one call of each kind."""
    store = stores.operations
    return [
        lambda: store.apply(factories.change(Transition.PROGRESS, operation.id)),
        lambda: store.insert(new_operation_id(), factories.new_operation(owner="outage")),
        lambda: store.get(operation.id, factories.access_filter()),
        lambda: factories.listed(
            store, factories.access_filter(), Selection(), None, 1, full=False
        ),
        store._batchers.problem,
        lambda: stores.keys.find_key("nobody"),
    ]


async def timed(call):
    """Return the result of the call and its duration in seconds."""
    start = time.monotonic()
    (result,) = await answers(call())
    return result, time.monotonic() - start


async def served(call):
    """Repeat the call until the store is available."""
    while True:
        (result,) = await answers(call())
        if not isinstance(result, StoreUnavailable):
            assert not isinstance(result, Exception), result
            return


@pytest.mark.parametrize("away", [unreachable, killed, stopped], ids=lambda away: away.__name__)
async def test_outage(cluster, store, stores, away):
    """Calls fail within 1 s while the database is away, and work within 5 s of its return."""
    operation = await factories.create(store)
    calls = every_kind(stores, operation)
    await asyncio.gather(*(call() for call in calls))
    with away(cluster):
        for _ in range(2):
            for result, seconds in await asyncio.gather(*(timed(call) for call in calls)):
                assert isinstance(result, StoreUnavailable), result
                assert seconds < FAILS_WITHIN_S * slowdown()
    async with asyncio.timeout(BACK_WITHIN_S):
        await asyncio.gather(*(served(call) for call in calls))
    assert all(
        not isinstance(result, Exception) for result in await answers(*(call() for call in calls))
    )


async def test_more_time_for_a_slow_database(cluster, engine):
    """A call waits for a database that takes longer than the default, if it may."""
    batchers = Batchers(engine, queue_timeout_s=4.5)
    store = Stores(batchers).operations
    operation = await factories.create(store)
    with frozen(cluster):
        call = asyncio.create_task(store.get(operation.id, factories.access_filter()))
        await asyncio.sleep(1.5 * QUEUE_TIMEOUT_S)
    assert await call == operation
    await batchers.close()


async def test_sessions_that_hang_are_replaced(cluster, store, stores):
    """The store replaces sessions that hang."""
    operation = await factories.create(store)
    calls = every_kind(stores, operation)[
        2:
    ]  # a transition in a frozen session keeps the lock of its row
    await asyncio.gather(*(call() for call in calls))
    with frozen(cluster):
        async with asyncio.timeout(BACK_WITHIN_S):
            await asyncio.gather(*(served(call) for call in calls))


async def test_acknowledged_moves_survive(cluster, store, engine):
    """A transition that was acknowledged before an outage is stored exactly once."""
    operation = await factories.create(store)
    calls = [
        asyncio.create_task(store.apply(factories.change(Transition.PROGRESS, operation.id)))
        for _ in range(20)
    ]
    await calls[5]
    with killed(cluster):
        found = await answers(*calls)
    acknowledged = [result for result in found if isinstance(result, TransitionResult)]
    assert len(acknowledged) >= 6
    assert {type(result) for result in found} <= {TransitionResult, StoreUnavailable}
    row = Stored(engine).operation(operation.id)
    assert row is not None
    # The one transition in progress may have been committed without an acknowledgement.
    assert 0 <= row["revision"] - (1 + len(acknowledged)) <= 1


async def test_closing_does_not_wait_for_the_database(stores, cluster, engine):
    """The batchers close while the database is away, and every call is answered."""
    batchers = Batchers(engine)
    stores = Stores(batchers)
    operation = await factories.create(stores.operations)
    with unreachable(cluster):
        calls = [asyncio.create_task(call()) for call in every_kind(stores, operation)]
        await asyncio.sleep(0)
        async with asyncio.timeout(BACK_WITHIN_S):
            await batchers.close()
            found = await answers(*calls)
    assert {type(result) for result in found} == {StoreUnavailable}


async def test_connecting_does_not_wait_for_the_database(cluster, engine):
    """Without the database, `connect` returns, and calls connect once it is back."""
    batchers = Batchers(engine)
    store = Stores(batchers).operations
    try:
        with unreachable(cluster):
            async with asyncio.timeout(BACK_WITHIN_S):
                await batchers.connect()
        async with asyncio.timeout(BACK_WITHIN_S):
            await served(lambda: store.insert(new_operation_id(), factories.new_operation()))
    finally:
        await batchers.close()


async def test_lost_reads_are_repeated(store, engine):
    """A read whose connection was lost runs again."""
    operation = await factories.create(store)
    assert await store.get(operation.id, factories.access_filter()) == operation
    with engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'milepost' AND pid <> pg_backend_pid()"
            )
        )
    assert await store.get(operation.id, factories.access_filter()) == operation


async def test_schema_that_is_missing(cluster):
    """A database without a schema makes the store unavailable."""
    cluster.create_database("empty")
    engine = open_engine(cluster.url("empty"))
    batchers = Batchers(engine)
    store = Stores(batchers).operations
    try:
        with pytest.raises(StoreUnavailable):
            await store.get(new_operation_id(), factories.access_filter())
        with pytest.raises(StoreUnavailable):
            await factories.create(store)
    finally:
        await batchers.close()
        cluster.drop_database("empty")
