"""The passes of the sweeper over a real store: batches, budgets, hints and numbers."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost import telemetry
from milepost.domain.errors import StoreUnavailable
from milepost.domain.lifecycle import Move
from milepost.domain.operation import Status
from milepost.domain.ports import Claim
from milepost.main.rounds import repeatedly
from milepost.storage.engine import open_engine
from milepost.storage.store import SqlOperationStore
from milepost.storage.tables import operations
from milepost.tracking.changes import Changes
from milepost.tracking.claiming import PendingWork
from milepost.tracking.sweeping import BATCH, Sweeping
from tests import factories
from tests.contract.stored import Stored
from tests.waiting import until

TTL = timedelta(hours=1)
CLAIM = Claim(
    functions=(factories.FUNCTION,),
    most=10,
    lease=timedelta(seconds=30),
    actor="wally",
    worker="wally",
)


@pytest.fixture
def engine(sqlite_url):
    """The engine of a fresh database."""
    return open_engine(sqlite_url)


@pytest.fixture
async def store(engine):
    """The store over it."""
    store = SqlOperationStore(engine)
    yield store
    await store.close()


@pytest.fixture
def stored(engine):
    """What the database holds."""
    return Stored(engine)


@pytest.fixture
def changes():
    """Who waits for changes."""
    return Changes()


@pytest.fixture
def work(store):
    """Who waits for work."""
    return PendingWork(store)


@pytest.fixture
def sweeping(store, changes, work):
    """The sweeper."""
    return Sweeping(store, changes=changes, work=work)


def sample(name, **labels):
    """The value of a metric, 0 if it has none yet."""
    return telemetry.registry.get_sample_value(name, labels) or 0.0


def fill(stored, count):
    """Expired operations, stored behind the back of the store."""
    old = factories.LONG_AGO + timedelta(days=1)
    rows = [factories.row(expire_time=old) for _ in range(count)]
    stored.execute(sa.insert(operations), rows)


async def test_one_pass_takes_as_many_batches_as_it_needs(stored, sweeping):
    """A pass works in batches until nothing is left, and says so (B67)."""
    fill(stored, 2 * BATCH + 5)
    counted = sample("milepost_moves_total", move="forget")
    swept = await sweeping.clean_up()
    assert (swept.moved[Move.FORGET], swept.more) == (2 * BATCH + 5, False)
    assert stored.count() == 0
    assert sample("milepost_moves_total", move="forget") - counted == 2 * BATCH + 5


async def test_pass_ends_when_its_time_is_spent(store, stored, changes, work):
    """A pass whose time is spent stops after its batch and says that more remain (B67)."""
    fill(stored, BATCH + 5)
    hurried = Sweeping(store, changes=changes, work=work, budget=timedelta())
    swept = await hurried.clean_up()
    assert (swept.moved[Move.FORGET], swept.more) == (BATCH, True)
    swept = await hurried.clean_up()
    assert (swept.moved[Move.FORGET], swept.more) == (5, False)


async def test_preview_changes_nothing(store, engine, stored, sweeping):
    """What a cleanup would do is told without doing it (B68)."""
    for status in (Status.PENDING, Status.PROCESSING, Status.FAILED):
        operation = await factories.reach(store, status, ttl=TTL)
        factories.age(engine, operation.id, 2 * TTL)
    preview = await sweeping.preview()
    assert preview.moved == {Move.EXPIRE: 1, Move.FORGET: 2}
    assert stored.count() == 3
    assert (await sweeping.clean_up()).moved == preview.moved


async def test_release_wakes_waiting_workers(store, engine, changes, work, sweeping):
    """A release is told to who listens to the operation, and to who waits for its work."""
    operation = await factories.create(store)
    await store.claim(CLAIM)
    factories.age(engine, operation.id, timedelta(minutes=1))
    lost = sample("milepost_leases_lost_total")
    with changes.listen(operation.id) as listener, work.listen(CLAIM.functions) as waiter:
        swept = await sweeping.sweep_leases()
        assert await listener.wait(5)
        assert waiter.is_awake
        waiter.follow()
    assert swept.moved[Move.RELEASE] == 1
    assert sample("milepost_leases_lost_total") == lost + 1


async def test_overdue_operations_are_measured(store, engine, sweeping):
    """What is due and not done is counted by its move, and no more after a sweep."""
    operation = await factories.create(store)
    await store.claim(CLAIM)
    factories.age(engine, operation.id, timedelta(minutes=1))
    assert (await sweeping.measure())[Move.RELEASE] == 1
    assert sample("milepost_operations_overdue", move="release") == 1
    await sweeping.sweep_leases()
    assert set((await sweeping.measure()).values()) == {0}
    assert sample("milepost_operations_overdue", move="release") == 0


async def test_events_are_forgotten_after_their_time(store, stored, changes, work):
    """The events of a removed operation are kept as long as the operator says."""
    operation = await factories.reach(store, Status.COMPLETED)
    await store.forget(factories.change(Move.FORGET, operation.id))
    kept = Sweeping(store, changes=changes, work=work, events_kept=timedelta(days=1))
    assert await kept.forget_events() == 0
    gone = Sweeping(store, changes=changes, work=work, events_kept=timedelta(days=-1))
    assert await gone.forget_events() == 1
    assert stored.events(operation.id) == []


async def test_failed_round_does_not_end_the_loop():
    """A loop goes on after a failure, whatever it was, and counts it."""
    rounds = [StoreUnavailable(), ValueError("a defect")]
    done = []

    async def once():
        if rounds:
            raise rounds.pop()
        done.append(1)

    failed = sample("milepost_background_failures_total", task="test")
    task = asyncio.create_task(repeatedly("test", once, 0.001))
    await until(lambda: len(done) >= 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sample("milepost_background_failures_total", task="test") == failed + 2
