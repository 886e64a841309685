"""Calls that share a transaction: each has its own result, whatever happens to the others."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa

from milepost.domain.errors import IllegalTransition, OperationNotFound, Overloaded
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.sweep import EXPIRE
from milepost.domain.transitions import Transition, TransitionResult
from milepost.storage import batching
from milepost.storage.batchers import Batchers
from milepost.storage.operations import MAX_READ, SqlOperationStore
from milepost.storage.session import Session
from milepost.storage.stores import Stores
from milepost.storage.tables import events
from tests import factories
from tests.contract.stored import answers
from tests.contract.test_claims import CLAIM
from tests.contract.test_records import block_event
from tests.waiting import until


class Batch:
    """Calls that wait for the next transaction of the store."""

    def __init__(self, store):
        self._store = store
        self.calls = []

    def add(self, call):
        """Start a call, which waits."""
        self.calls.append(asyncio.create_task(call))

    async def complete(self):
        """Wait until all calls are queued in the store."""
        await until(lambda: len(self._store._batchers.writes._waiting) == len(self.calls))

    async def answers(self):
        """Return the results of the calls."""
        return await answers(*self.calls)


@asynccontextmanager
async def held_batch(store, stored):
    """Hold the store: calls that are added to the batch inside run together at the end."""
    gate = await factories.create(store)
    with stored.held(gate.id):
        start = asyncio.create_task(store.apply(factories.change(Transition.START, gate.id)))
        await until(lambda: bool(store._batchers.writes._running))
        batch = Batch(store)
        yield batch
        await batch.complete()
    await start


async def test_each_call_gets_its_own_answer(store, stored):
    """In a batch of all transitions, each caller gets the result of its own call."""
    processing = [(await factories.reach(store, Status.PROCESSING)).id for _ in range(4)]
    pending = [(await factories.create(store)).id for _ in range(2)]
    unknown, fresh = new_operation_id(), new_operation_id()
    async with held_batch(store, stored) as batch:
        for transition, operation_id in zip(
            (Transition.PROGRESS, Transition.COMPLETE, Transition.FAIL, Transition.CANCEL),
            processing,
            strict=True,
        ):
            batch.add(store.apply(factories.change(transition, operation_id, progress=0.5)))
        batch.add(store.apply(factories.change(Transition.START, pending[0])))
        batch.add(store.apply(factories.change(Transition.COMPLETE, pending[1])))
        batch.add(store.apply(factories.change(Transition.CANCEL, unknown)))
        batch.add(store.insert(fresh, factories.new_operation()))
    *changed, illegal, missing, created = await batch.answers()
    assert [result.operation.id for result in changed] == [*processing, pending[0]]
    assert [str(result.operation.status) for result in changed] == [
        "PROCESSING", "COMPLETED", "FAILED", "CANCELLED", "PROCESSING",
    ]  # fmt: skip
    assert isinstance(illegal, IllegalTransition)
    assert isinstance(missing, OperationNotFound)
    assert created.operation.id == fresh
    for result in changed:
        assert stored.operation(result.operation.id)["revision"] == result.operation.revision


async def test_calls_of_one_operation_keep_their_order(store, stored):
    """Waiting calls of one operation run one after the other, in their order."""
    operation = await factories.create(store)
    async with held_batch(store, stored) as batch:
        for transition in (
            Transition.START,
            Transition.PROGRESS,
            Transition.COMPLETE,
            Transition.CANCEL,
        ):
            batch.add(store.apply(factories.change(transition, operation.id)))
    *changed, refused = await batch.answers()
    assert [result.operation.revision for result in changed] == [2, 3, 4]
    assert (type(refused), refused.status) == (IllegalTransition, Status.COMPLETED)


@pytest.mark.parametrize("transition", [Transition.START, Transition.PROGRESS])
async def test_one_bad_call_fails_only_itself(store, stored, transition):
    """A transition that the database refuses fails alone; the others of its batch happen once."""
    ids = [(await factories.create(store)).id for _ in range(4)]
    processing = [(await factories.reach(store, Status.PROCESSING)).id for _ in range(2)]
    fresh = [new_operation_id() for _ in range(2)]
    bad = ids[1]
    block_event(stored, bad, 2)
    before = stored.everything(bad)
    async with held_batch(store, stored) as batch:
        batch.add(store.insert(fresh[0], factories.new_operation()))
        for operation_id in (*processing, *ids):
            kind = Transition.PROGRESS if operation_id in processing else transition
            batch.add(store.apply(factories.change(kind, operation_id)))
        batch.add(store.insert(fresh[1], factories.new_operation(request_id="r-1")))
    found = await batch.answers()
    broken = found.pop(1 + len(processing) + ids.index(bad))
    assert isinstance(broken, Exception)
    assert stored.everything(bad) == before
    assert all(isinstance(result, TransitionResult) and not result.replayed for result in found)
    assert stored.count() == 1 + len(ids) + len(processing) + len(fresh)
    for result in found:
        row = stored.operation(result.operation.id)
        assert row["revision"] == result.operation.revision
        # One transition each, and a start before it for those that were processing.
        transitions = 3 if row["id"] in processing else 1 if row["id"] in fresh else 2
        assert row["revision"] == transitions


async def test_one_bad_create_fails_only_itself(store, stored):
    """A create that the database refuses fails alone; the others of its batch happen once."""
    fresh = [new_operation_id() for _ in range(5)]
    block_event(stored, fresh[2], 1)
    operation = await factories.create(store)
    async with held_batch(store, stored) as batch:
        batch.add(store.apply(factories.change(Transition.START, operation.id)))
        for operation_id in fresh:
            batch.add(store.insert(operation_id, factories.new_operation()))
    found = await batch.answers()
    assert isinstance(found.pop(3), Exception)
    assert [result.operation.id for result in found] == [
        operation.id, fresh[0], fresh[1], fresh[3], fresh[4],
    ]  # fmt: skip
    assert stored.operation(fresh[2]) is None


async def test_caller_that_left_undoes_nothing(store, stored):
    """A transition whose caller gives up while it runs is committed."""
    operation = await factories.create(store)
    with stored.held(operation.id):
        start = factories.change(Transition.START, operation.id, request_id="r-1")
        caller = asyncio.create_task(store.apply(start))
        await until(lambda: bool(store._batchers.writes._running))
        caller.cancel()
        await answers(caller)
        assert caller.cancelled()
    assert (await store.apply(start)).replayed
    assert [event["type"] for event in stored.events(operation.id)][1:] == ["operation.started"]


async def test_caller_that_left_the_queue_asked_nothing(store, stored):
    """A transition whose caller gives up while it waits does not happen; the others do."""
    cancelled, kept = [(await factories.create(store)).id for _ in range(2)]
    async with held_batch(store, stored) as batch:
        for operation_id in (cancelled, kept):
            batch.add(store.apply(factories.change(Transition.START, operation_id)))
        await batch.complete()
        batch.calls[0].cancel()
    error, served = await batch.answers()
    assert isinstance(error, asyncio.CancelledError)
    assert served.operation.status is Status.PROCESSING
    assert stored.operation(cancelled)["revision"] == 1


async def test_callers_that_leave_at_random(store, replica, stored):
    """After many cancelled calls, the revision of each operation agrees with its events."""
    ids = [(await factories.create(store)).id for _ in range(30)]
    tasks = [
        asyncio.create_task(each.apply(factories.change(transition, operation_id)))
        for operation_id in ids
        for each, transition in (
            (store, Transition.START),
            (replica, Transition.CANCEL),
            (store, Transition.CANCEL),
        )
    ]
    for task in tasks[::2]:
        await asyncio.sleep(0)
        task.cancel()
    await answers(*tasks)
    await answers(store._batchers.close(), replica._batchers.close())
    for operation_id in ids:
        row, written, _ = stored.everything(operation_id)
        assert row is not None
        assert row["revision"] == len(written)
        assert [event["revision"] for event in written] == list(range(1, len(written) + 1))


async def test_too_many_calls_are_refused_at_once(store, stored, monkeypatch):
    """A call beyond MAX_WAITING is refused at once; the waiting calls succeed."""
    monkeypatch.setattr(batching, "MAX_WAITING", 5)
    ids = [(await factories.create(store)).id for _ in range(6)]
    async with held_batch(store, stored) as batch:
        for operation_id in ids[:5]:
            batch.add(store.apply(factories.change(Transition.START, operation_id)))
        await batch.complete()
        with pytest.raises(Overloaded):
            await store.apply(factories.change(Transition.START, ids[5]))
    assert all(isinstance(result, TransitionResult) for result in await batch.answers())
    assert stored.operation(ids[5])["revision"] == 1


async def test_without_batching_it_is_the_same(engine):
    """Without batching, the results are the same."""
    batchers = Batchers(engine, batching=False)
    store = SqlOperationStore(batchers)
    try:
        ids = [(await factories.create(store)).id for _ in range(5)]
        found = await answers(
            *(store.apply(factories.change(Transition.START, each)) for each in (*ids, ids[0]))
        )
        assert [type(result) for result in found] == [TransitionResult] * 5 + [IllegalTransition]
    finally:
        await batchers.close()


async def test_many_reads_at_once(store):
    """Each of many concurrent reads gets its own operation or error."""
    operations = [await factories.create(store) for _ in range(10)]
    unknown = new_operation_id()
    keys = [operation.id for operation in operations]
    found = await answers(
        *(store.get(each, factories.access_filter()) for each in (*keys, unknown, *reversed(keys)))
    )
    assert found[:10] == operations
    assert isinstance(found[10], OperationNotFound)
    assert found[11:] == operations[::-1]


async def test_one_read_for_two_askers(store):
    """Concurrent reads with different access filters get different results."""
    operation = await factories.create(store)
    stranger = factories.access_filter(factories.STRANGER)
    filters = [factories.access_filter(), stranger] * 10
    found = await answers(*(store.get(operation.id, each) for each in filters))
    assert [type(result) for result in found] == [type(operation), OperationNotFound] * 10


async def test_no_call_waits_for_a_connection(engine):
    """After `connect`, calls of every kind find their connections open."""
    batchers = Batchers(engine)
    stores = Stores(batchers)
    opened: list[object] = []
    try:
        await batchers.connect()
        sa.event.listen(engine, "connect", lambda connection, _: opened.append(connection))
        operation = await factories.create(stores.operations)
        await stores.operations.get(operation.id, factories.access_filter())
        await stores.work.claim(CLAIM)
        await stores.sweeps.sweep(EXPIRE, 1)
        await stores.sweeps.due(EXPIRE)
    finally:
        await batchers.close()
    assert not opened


async def test_closed_store_has_finished(engine, stored):
    """A close finishes the waiting calls."""
    batchers = Batchers(engine)
    store = SqlOperationStore(batchers)
    calls = [
        asyncio.create_task(store.insert(new_operation_id(), factories.new_operation()))
        for _ in range(20)
    ]
    await asyncio.sleep(0)
    await batchers.close()
    assert all(isinstance(result, TransitionResult) for result in await answers(*calls))
    assert stored.count() == 20


def test_squatting_is_possible(engine, stored):
    """The event that `block_event` inserts is a legal row."""
    operation_id = new_operation_id()
    block_event(stored, operation_id, 1)
    with engine.connect() as connection:
        found = connection.execute(sa.select(events.c.operation_id)).scalars().all()
    assert found == [operation_id]


class ReadingSession(Session):
    """A session that counts the rows of input of each read."""

    reads: list[int]

    def read(self, statement, rows):
        """Count the rows, and read."""
        self.reads.append(len(rows))
        return super().read(statement, rows)


async def test_a_read_of_many_operations_is_bounded(store, engine):
    """Many operations are read in steps, each in its place, and each distinct one once."""
    ids = [(await factories.create(store)).id for _ in range(5)] * 20
    keys = [(operation_id, factories.access_filter()) for operation_id in ids]
    unknown = [(new_operation_id(), factories.access_filter()) for _ in range(MAX_READ)]
    session = ReadingSession(engine, read_only=True)
    session.reads = []
    found = store._get_all(session, [*keys, *unknown, keys[0]])
    assert session.reads == [MAX_READ, 5]
    assert [operation.id for operation in (*found[:100], found[-1])] == [*ids, ids[0]]
    assert all(isinstance(error, OperationNotFound) for error in found[100:-1])
    session.reset()
