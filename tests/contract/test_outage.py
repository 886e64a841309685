"""When the database is away calls are told so within a second, and served again when it is back."""

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
from milepost.storage.engine import open_engine
from milepost.storage.schema import upgrade
from milepost.storage.stores import Stores
from tests import factories
from tests.contract.stored import Stored, answers
from tests.postgres import PostgresCluster

TOLD_WITHIN_S = 1.0
BACK_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def cluster():
    """A PostgreSQL that may be stopped: nobody else uses it."""
    with PostgresCluster(durable=False) as cluster:
        cluster.create_database("outage")
        upgrade(cluster.url("outage"))
        yield cluster


@pytest.fixture
def database_url(cluster):
    """The one database of the cluster."""
    return cluster.url("outage")


def frozen(cluster):
    """The sessions of the server neither answer nor end."""
    return cluster.frozen(whole=False)


def unreachable(cluster):
    """The server accepts connections, and says nothing to them."""
    return cluster.frozen()


@contextmanager
def killed(cluster):
    """There is no server."""
    cluster.kill()
    try:
        yield
    finally:
        cluster.start()


@contextmanager
def stopped(cluster):
    """There is no server, after an orderly end."""
    cluster.stop()
    try:
        yield
    finally:
        cluster.start()


def every_kind(stores, operation):
    """One call of each kind, not yet made."""
    store = stores.operations
    return [
        lambda: store.apply(factories.change(Transition.PROGRESS, operation.id)),
        lambda: store.insert(new_operation_id(), factories.new_operation(owner="outage")),
        lambda: store.get(operation.id, factories.access_filter()),
        lambda: store.list(factories.access_filter(), Selection(), None, 1, full=False),
        store._batchers.ping,
        lambda: stores.keys.find_key("nobody"),
    ]


async def timed(call):
    """The answer to the call, and how long it took."""
    start = time.monotonic()
    (answer,) = await answers(call())
    return answer, time.monotonic() - start


async def served(call):
    """The call is served, after however many refusals."""
    while True:
        (answer,) = await answers(call())
        if not isinstance(answer, StoreUnavailable):
            assert not isinstance(answer, Exception), answer
            return


@pytest.mark.parametrize("away", [unreachable, killed, stopped], ids=lambda away: away.__name__)
async def test_outage(cluster, store, stores, away):
    """Every call fails within 1 s while the store is away, and works within 5 s of its return."""
    operation = await factories.create(store)
    calls = every_kind(stores, operation)
    await asyncio.gather(*(call() for call in calls))
    with away(cluster):
        for _ in range(2):
            for answer, seconds in await asyncio.gather(*(timed(call) for call in calls)):
                assert isinstance(answer, StoreUnavailable), answer
                assert seconds < TOLD_WITHIN_S
    async with asyncio.timeout(BACK_WITHIN_S):
        await asyncio.gather(*(served(call) for call in calls))
    assert all(
        not isinstance(answer, Exception) for answer in await answers(*(call() for call in calls))
    )


async def test_sessions_that_hang_are_replaced(cluster, store, stores):
    """When only its sessions hang the store gives them up, and goes on with new ones."""
    operation = await factories.create(store)
    calls = every_kind(stores, operation)[2:]  # a transition in a frozen session holds its row
    await asyncio.gather(*(call() for call in calls))
    with frozen(cluster):
        async with asyncio.timeout(BACK_WITHIN_S):
            await asyncio.gather(*(served(call) for call in calls))


async def test_acknowledged_moves_survive(cluster, store, engine):
    """What was acknowledged before an outage is there after it, once."""
    operation = await factories.create(store)
    calls = [
        asyncio.create_task(store.apply(factories.change(Transition.PROGRESS, operation.id)))
        for _ in range(20)
    ]
    await calls[5]
    with killed(cluster):
        found = await answers(*calls)
    acknowledged = [answer for answer in found if isinstance(answer, TransitionResult)]
    assert len(acknowledged) >= 6
    assert {type(answer) for answer in found} <= {TransitionResult, StoreUnavailable}
    row = Stored(engine).operation(operation.id)
    assert row is not None
    # The one transition that was under way may have been committed without an acknowledgement.
    assert 0 <= row["revision"] - (1 + len(acknowledged)) <= 1


async def test_closing_does_not_wait_for_the_database(stores, cluster, engine):
    """A store whose database is away still closes, with every call answered."""
    batchers = Batchers(engine)
    stores = Stores(batchers)
    operation = await factories.create(stores.operations)
    with unreachable(cluster):
        calls = [asyncio.create_task(call()) for call in every_kind(stores, operation)]
        await asyncio.sleep(0)
        async with asyncio.timeout(BACK_WITHIN_S):
            await batchers.close()
            found = await answers(*calls)
    assert {type(answer) for answer in found} == {StoreUnavailable}


async def test_lost_reads_are_repeated(store, engine):
    """A read whose connection was cut is made again, unseen by its caller."""
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
    """A database that was never migrated is a store that is not available, not a defect."""
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
