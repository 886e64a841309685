"""The passes of the sweeper over a real store: batches, budgets, notifications and metrics."""

import asyncio
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost import telemetry
from milepost.domain.claim import ClaimRequest
from milepost.domain.errors import StoreUnavailable
from milepost.domain.operation import Status
from milepost.domain.sweep import EXPIRE, PURGE, RELEASE
from milepost.domain.transitions import Transition
from milepost.main.periodic_tasks import run_periodically
from milepost.storage import sweeps as sweeps_module
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from milepost.storage.tables import operations
from milepost.tracking import sweeper as sweeper_module
from milepost.tracking.claimer import PendingWork
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.sweeper import PurgedEvents, Sweeper
from tests import factories
from tests.contract.stored import Stored
from tests.waiting import until

BATCH = 50
"""Operations of one transaction in these tests: quick on a busy machine, too."""
TTL = timedelta(hours=1)
CLAIM = ClaimRequest(
    functions=(factories.FUNCTION,),
    max_operations=10,
    max_bytes=factories.PLENTY,
    lease=timedelta(seconds=30),
    actor="wally",
    worker="wally",
)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(sweeper_module, "BATCH", BATCH)


@pytest.fixture
def engine(sqlite_url):
    """The engine of a fresh database, whose leases could be renewed at any time."""
    engine = open_engine(sqlite_url)
    factories.serve_always(engine)
    return engine


@pytest.fixture
async def stores(engine):
    """The stores over the engine."""
    batchers = Batchers(engine)
    yield Stores(batchers)
    await batchers.close()


@pytest.fixture
def store(stores):
    """The store of operations."""
    return stores.operations


@pytest.fixture(autouse=True)
def whole_batches(monkeypatch):
    """Batches are whole, however busy the machine is."""
    monkeypatch.setattr(sweeps_module, "TURN_S", 60.0)


@pytest.fixture
def stored(engine):
    """The rows of the database."""
    return Stored(engine)


@pytest.fixture
def subscriptions():
    """The subscriptions to changes."""
    return Subscriptions()


@pytest.fixture
def work(stores):
    """The claims that wait for work."""
    return PendingWork(stores.work)


@pytest.fixture
def sweeper(stores, subscriptions, work):
    """The sweeper."""
    return Sweeper(stores.sweeps, subscriptions=subscriptions, work=work)


def sample(name, **labels):
    """Return the value of a metric, or 0 if it has none yet."""
    return telemetry.registry.get_sample_value(name, labels) or 0.0


def fill(stored, count):
    """Insert expired operations directly into the database."""
    old = factories.LONG_AGO + timedelta(days=1)
    rows = [factories.row(expire_time=old) for _ in range(count)]
    stored.execute(sa.insert(operations), rows)


async def test_one_pass_takes_as_many_batches_as_it_needs(stored, sweeper):
    """A pass works in batches until nothing is left, and returns that no more remain."""
    fill(stored, 2 * BATCH + 5)
    counted = sample("milepost_transitions_total", transition="purge")
    swept = await sweeper.clean_up()
    assert (swept.counts[PURGE], swept.more) == (2 * BATCH + 5, False)
    assert stored.count() == 0
    assert sample("milepost_transitions_total", transition="purge") - counted == 2 * BATCH + 5


async def test_pass_ends_when_its_time_is_spent(stores, stored, subscriptions, work):
    """A pass that has used its budget stops after its batch, and returns that more remain."""
    fill(stored, BATCH + 5)
    hurried = Sweeper(stores.sweeps, subscriptions=subscriptions, work=work, budget=timedelta())
    swept = await hurried.clean_up()
    assert (swept.counts[PURGE], swept.more) == (BATCH, True)
    assert (await hurried.clean_up()).counts[PURGE] == 5
    swept = await hurried.clean_up()
    assert (swept.counts[PURGE], swept.more) == (0, False)


@pytest.mark.parametrize("kind", ["leases", "cleanup"])
async def test_pass_is_counted_and_timed(sweeper, kind):
    """Each pass, also one that finds nothing, is counted, and its end has a time."""
    passes = sample("milepost_sweeper_passes_total", kind=kind)
    begun = time.time()
    await (sweeper.sweep_leases() if kind == "leases" else sweeper.clean_up())
    assert sample("milepost_sweeper_passes_total", kind=kind) == passes + 1
    assert sample("milepost_sweeper_last_pass_timestamp_seconds", kind=kind) >= begun


async def test_preview_changes_nothing(store, engine, stored, sweeper):
    """The preview of a cleanup counts transitions without making them."""
    for status in (Status.PENDING, Status.PROCESSING, Status.FAILED):
        operation = await factories.reach(store, status, ttl=TTL)
        factories.age(engine, operation.id, 2 * TTL)
    preview = await sweeper.preview()
    assert preview.counts == {EXPIRE: 1, PURGE: 2}
    assert stored.count() == 3
    assert (await sweeper.clean_up()).counts == preview.counts


async def test_release_wakes_waiting_workers(stores, engine, subscriptions, work, sweeper):
    """A release notifies the subscribers of the operation and a claim that waits for its work."""
    operation = await factories.create(stores.operations)
    await stores.work.claim(CLAIM)
    factories.age(engine, operation.id, timedelta(minutes=1))
    lost = sample("milepost_leases_lost_total", function=factories.FUNCTION)
    with (
        subscriptions.subscribed(operation.id) as subscriber,
        work.subscribed(CLAIM.functions) as waiter,
    ):
        swept = await sweeper.sweep_leases()
        assert await subscriber.wait(5)
        assert waiter.is_notified
        waiter.consume()
    assert swept.counts[RELEASE] == 1
    assert sample("milepost_leases_lost_total", function=factories.FUNCTION) == lost + 1


async def test_overdue_operations_are_measured(store, stores, engine, sweeper):
    """Overdue transitions are counted until a sweep makes them."""
    operation = await factories.create(store)
    await stores.work.claim(CLAIM)
    factories.age(engine, operation.id, timedelta(minutes=1))
    assert (await sweeper.measure())[RELEASE] == 1
    assert sample("milepost_operations_overdue", sweep="release") == 1
    await sweeper.sweep_leases()
    assert set((await sweeper.measure()).values()) == {0}
    assert sample("milepost_operations_overdue", sweep="release") == 0


async def test_events_are_deleted_after_their_retention(store, stores, stored, subscriptions, work):
    """The events of a deleted operation are kept for the configured time."""
    operation = await factories.reach(store, Status.COMPLETED)
    await store.delete(factories.change(Transition.PURGE, operation.id))
    kept = Sweeper(
        stores.sweeps, subscriptions=subscriptions, work=work, event_retention=timedelta(days=1)
    )
    assert await kept.purge_events() == PurgedEvents(operations=0)
    gone = Sweeper(
        stores.sweeps, subscriptions=subscriptions, work=work, event_retention=timedelta(days=-1)
    )
    assert await gone.purge_events() == PurgedEvents(operations=1)
    assert stored.events(operation.id) == []


async def test_failed_pass_does_not_end_the_loop():
    """A loop continues after any failure, and counts it."""
    rounds = [StoreUnavailable(), ValueError("a defect")]
    done = []

    async def once():
        if rounds:
            raise rounds.pop()
        done.append(1)

    failed = sample("milepost_background_failures_total", task="test")
    task = asyncio.create_task(run_periodically("test", once, 0.001))
    await until(lambda: len(done) >= 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sample("milepost_background_failures_total", task="test") == failed + 2


@pytest.fixture
def hurried(stores, subscriptions, work):
    """A sweeper whose time is spent after one batch, and which keeps no events."""
    return Sweeper(
        stores.sweeps,
        subscriptions=subscriptions,
        work=work,
        event_retention=timedelta(days=-1),
        budget=timedelta(),
    )


@pytest.fixture
def repeated():
    """A function that runs a pass periodically, with a pause that no test waits for."""
    tasks = []

    def repeat(once):
        found: asyncio.Queue[bool] = asyncio.Queue()

        async def one_pass():
            result = await once()
            found.put_nowait(result.more)
            return result

        tasks.append(asyncio.create_task(run_periodically("test", one_pass, 3_600, at_once=True)))
        return tasks[-1], found

    yield repeat
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize("name", ["clean_up", "purge_events"])
async def test_pass_that_left_work_over_goes_on_at_once(stored, sweeper, hurried, repeated, name):
    """A pass whose time was spent is repeated without its pause until nothing is left."""
    fill(stored, 2 * BATCH)
    if name == "purge_events":
        await sweeper.clean_up()
    _task, found = repeated(getattr(hurried, name))
    assert [await asyncio.wait_for(found.get(), 10) for _ in range(3)] == [True, True, False]
    assert stored.count() == 0


async def test_passes_without_a_pause_end_when_cancelled(stored, hurried, repeated):
    """Passes that follow each other without a pause end with the batch that runs."""
    fill(stored, 4 * BATCH)
    task, found = repeated(hurried.clean_up)
    assert await asyncio.wait_for(found.get(), 10)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert stored.count() >= 2 * BATCH


async def test_outage_is_logged_once(lines):
    """Of several failures for want of the database, one line is written, and all are counted."""
    rounds = [StoreUnavailable() for _ in range(5)]
    done = []

    async def once():
        if rounds:
            raise rounds.pop()
        done.append(1)

    failed = sample("milepost_background_failures_total", task="away")
    task = asyncio.create_task(run_periodically("away", once, 0.001))
    await until(lambda: bool(done))
    task.cancel()
    assert [line["event"] for line in lines()] == ["background task failed"]
    assert sample("milepost_background_failures_total", task="away") == failed + 5
