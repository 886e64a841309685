"""Retention of events: on PostgreSQL a day at a time, elsewhere row by row, with one promise."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from milepost.domain.errors import OperationDeleted, OperationNotFound, StoreUnavailable
from milepost.domain.operation import Status
from milepost.domain.transitions import Transition
from milepost.storage import event_days
from milepost.storage.batchers import Batchers
from milepost.storage.dialects import Span, later
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from milepost.storage.tables import events, operations
from milepost.tracking.claimer import PendingWork
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.sweeper import Sweeper
from tests import factories
from tests.contract.stored import Stored, history_of
from tests.event_days import make_past_day, making_today
from tests.waiting import until

KEPT = timedelta(days=7)
OLD = timedelta(days=10)
RECENT = timedelta(days=5)
DENIED_ROLE = "milepost_rows_only"
_WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def deleted(store):
    """Return an operation that its owner has deleted."""
    operation = await factories.reach(store, Status.COMPLETED)
    await store.delete(factories.change(Transition.PURGE, operation.id))
    return operation


def age(stored, operation, by):
    """Move an operation and its events into the past, to the partition of their day."""
    earlier = {"create_time": later(operations.c.create_time, sa.literal(-by, Span()))}
    of_operation = operations.c.id == operation.id
    stored.execute(sa.update(operations).where(of_operation).values(earlier))
    old = later(events.c.time, sa.literal(-by, Span()))
    of_events = events.c.operation_id == operation.id
    stored.execute(sa.update(events).where(of_events).values(time=old))


async def retain(stores):
    """Apply the retention, as a replica does periodically."""
    days = await stores.sweeps.keep_event_days(KEPT)
    while await stores.sweeps.purge_events(KEPT, 1_000):
        pass
    return days


@pytest.mark.parametrize("has_day", [True, False])
async def test_events_are_kept_while_their_operation_exists(store, stores, stored, has_day):
    """Events of an operation that exists are kept, whatever their age; later ones join them."""
    if has_day:
        make_past_day(stored.engine, OLD)
    operation = await factories.reach(store, Status.PROCESSING)
    age(stored, operation, OLD)
    before = await history_of(stores, operation)
    await retain(stores)
    assert await history_of(stores, operation) == before
    await store.apply(factories.change(Transition.COMPLETE, operation.id))
    assert [event.revision for event in await history_of(stores, operation)] == [1, 2, 3]
    changes = await stores.history.status_changes(operation.id, after=0, before=9, limit=9)
    assert [change.revision for change in changes] == [1, 2, 3]


@pytest.mark.parametrize("has_day", [True, False])
async def test_last_event_is_kept_for_its_retention(store, stores, stored, has_day):
    """The owner is told of a removal for the retention of its event, and no longer."""
    recent, old = await deleted(store), await deleted(store)
    for operation, ago in ((recent, RECENT), (old, OLD)):
        if has_day:
            make_past_day(stored.engine, ago)
        age(stored, operation, ago)
    await retain(stores)
    with pytest.raises(OperationDeleted):
        await store.get(recent.id, factories.access_filter())
    with pytest.raises(OperationNotFound) as caught:
        await store.get(old.id, factories.access_filter())
    assert type(caught.value) is OperationNotFound
    assert stored.events(old.id) == []


async def test_repeated_request_is_found_beyond_its_day(store, stored):
    """A request that is repeated days later is recognised, whatever day its event is in."""
    make_past_day(stored.engine, RECENT)
    operation = await factories.create(store)
    start = factories.change(Transition.START, operation.id, request_id="r-1")
    await store.apply(start)
    await store.apply(factories.change(Transition.RELEASE, operation.id))
    age(stored, operation, RECENT)
    assert (await store.apply(start)).replayed
    assert stored.operation(operation.id)["status"] == "PENDING"


async def written(lines):
    """Wait for lines of the log, which are written in the background, and return them."""
    found: list[Mapping[str, Any]] = []

    def is_written() -> bool:
        found.extend(lines())
        return bool(found)

    await until(is_written, patience=5)
    return found


# --- PostgreSQL: the partitions themselves ---


@pytest.fixture
def server(postgres_url):
    """The rows of a fresh PostgreSQL database."""
    return Stored(open_engine(postgres_url))


@pytest.fixture
async def replicas(server):
    """The stores of two replicas on it."""
    both = [Batchers(server.engine), Batchers(server.engine)]
    yield [Stores(each) for each in both]
    for each in both:
        await each.close()


def days(server):
    """Return the names of the partitions, except the default one."""
    names = sa.inspect(server.engine).get_table_names()
    return sorted(name for name in names if name.startswith("events_") and name[7:].isdigit())


def named(*offsets):
    """Return the names of the partitions of days, counted from today."""
    return [f"events_{datetime.now(UTC) + timedelta(days=n):%Y%m%d}" for n in offsets]


def drop_days(server):
    """Drop all partitions but the default one, as after a long time without a replica."""
    for name in days(server):
        server.execute(sa.text(f"DROP TABLE {name}"))


def is_anyone_waiting(server):
    """Return whether a statement waits for a lock."""
    with server.engine.connect() as connection:
        return bool(connection.scalar(_WAITING))


async def test_days_are_made_ahead_once(server, replicas):
    """Replicas that keep the days at the same time make each of the next days once."""
    drop_days(server)
    found = await asyncio.gather(*(each.sweeps.keep_event_days(KEPT) for each in replicas))
    made = sorted(name for each in found for name in each.made)
    assert made == days(server) == named(*range(event_days.DAYS_AHEAD + 1))
    operation = await factories.create(replicas[0].operations)
    with server.engine.connect() as connection:
        place = connection.scalar(sa.text("SELECT tableoid::regclass::text FROM events"))
    assert [place] == named(0)
    assert len(server.events(operation.id)) == 1


async def test_day_without_a_partition_is_in_the_default_one(server, replicas):
    """Events of a day without a partition are stored, and only later days get partitions."""
    drop_days(server)
    first, second = [await factories.create(replicas[0].operations)], []
    await replicas[0].sweeps.keep_event_days(KEPT)
    second.append(await factories.create(replicas[0].operations))
    assert days(server) == named(1, 2, 3)
    assert all(len(server.events(each.id)) == 1 for each in first + second)


async def test_create_waits_for_the_day_that_is_made(server, replicas):
    """An event that was on its way to the default partition goes to the day made meanwhile."""
    drop_days(server)
    with making_today(server.engine):
        creating = asyncio.ensure_future(factories.create(replicas[0].operations))
        await until(lambda: is_anyone_waiting(server))
    operation = await creating
    with server.engine.connect() as connection:
        place = connection.scalar(sa.text("SELECT tableoid::regclass::text FROM events"))
    assert [place] == named(0)
    assert len(server.events(operation.id)) == 1


async def test_day_is_dropped_with_its_events(server, replicas, lines):
    """A day whose retention is over is dropped as a whole, and the log names it."""
    make_past_day(server.engine, OLD)
    make_past_day(server.engine, RECENT)
    operation = await deleted(replicas[0].operations)
    age(server, operation, OLD)
    sweeper = Sweeper(
        replicas[0].sweeps, subscriptions=Subscriptions(), work=PendingWork(replicas[0].work)
    )
    await sweeper.keep_event_days()
    (line,) = await written(lines)
    assert (line["event"], line["dropped"]) == ("event days changed", named(-OLD.days))
    assert days(server) == named(-RECENT.days, *range(event_days.DAYS_AHEAD + 1))
    assert server.events(operation.id) == []


async def test_moved_events_go_after_their_operation(server, replicas):
    """Events that outlived their day are removed when their operation is gone, with a later day."""
    store, sweeps = replicas[0].operations, replicas[0].sweeps
    make_past_day(server.engine, OLD)
    operation = await factories.reach(store, Status.COMPLETED)
    age(server, operation, OLD)
    await sweeps.keep_event_days(KEPT)
    assert len(server.events(operation.id)) == 3
    server.execute(sa.delete(operations))
    assert await sweeps.purge_events(KEPT, 1_000) == 0
    make_past_day(server.engine, OLD - timedelta(days=1))
    await sweeps.keep_event_days(KEPT)
    assert server.events(operation.id) == []


async def test_day_of_many_operations_stays(server, replicas, monkeypatch):
    """A day with more existing operations than may be moved stays as it is."""
    monkeypatch.setattr(event_days, "MAX_MOVED", 1)
    make_past_day(server.engine, OLD)
    for _ in range(2):
        age(server, await factories.create(replicas[0].operations), OLD)
    assert (await replicas[0].sweeps.keep_event_days(KEPT)).dropped == ()
    server.execute(
        sa.delete(operations).where(operations.c.id.in_(sa.select(operations.c.id).limit(1)))
    )
    assert list((await replicas[0].sweeps.keep_event_days(KEPT)).dropped) == named(-OLD.days)


async def test_reader_in_the_way_delays_the_drop(server, replicas):
    """A transaction that reads the events, such as a backup, delays a drop and stops no call."""
    make_past_day(server.engine, OLD)
    with server.engine.connect() as backup:
        backup.execute(sa.text("SELECT count(*) FROM events"))
        dropping = asyncio.ensure_future(replicas[0].sweeps.keep_event_days(KEPT))
        await factories.reach(replicas[1].operations, Status.COMPLETED)
        with pytest.raises(StoreUnavailable):
            await dropping
    assert (await replicas[0].sweeps.keep_event_days(KEPT)).dropped


async def test_role_that_may_not_change_tables(server, lines):
    """A role that may only change rows serves as ever, and purges events row by row."""
    name = server.engine.url.database
    role = f"{DENIED_ROLE}_{name[-8:]}"
    for statement in (
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    ):
        server.execute(sa.text(statement))
    drop_days(server)
    batchers = Batchers(
        open_engine(server.engine.url.set(username=role).render_as_string(hide_password=False))
    )
    stores = Stores(batchers)
    sweeper = Sweeper(stores.sweeps, subscriptions=Subscriptions(), work=PendingWork(stores.work))
    try:
        for _ in range(2):
            assert not (await sweeper.keep_event_days()).is_permitted
        assert [line["event"] for line in await written(lines)] == ["event days not kept"]
        operation = await deleted(stores.operations)
        age(server, operation, OLD)
        assert await stores.sweeps.purge_events(KEPT, 1_000) == 1
        assert server.events(operation.id) == []
    finally:
        await batchers.close()
        server.execute(sa.text(f"DROP OWNED BY {role}"))
        server.execute(sa.text(f"DROP ROLE {role}"))
