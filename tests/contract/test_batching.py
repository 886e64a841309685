"""Calls that share a transaction: each is answered for itself, whoever fails or goes away."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa

from milepost.domain.errors import IllegalTransition, OperationNotFound, Overloaded
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.transitions import Transition, TransitionResult
from milepost.storage import batching
from milepost.storage.batchers import Batchers
from milepost.storage.operations import SqlOperationStore
from milepost.storage.tables import events
from tests import factories
from tests.contract.stored import answers
from tests.contract.test_records import squat
from tests.waiting import until


class Batch:
    """Calls that wait for the next transaction of the store, together."""

    def __init__(self, store):
        self._store = store
        self.calls = []

    def add(self, call):
        """The call waits too."""
        self.calls.append(asyncio.create_task(call))

    async def complete(self):
        """All calls wait in the store, in the order in which they were added."""
        await until(lambda: len(self._store._batchers.writes._waiting) == len(self.calls))

    async def answers(self):
        """What the calls were answered."""
        return await answers(*self.calls)


@asynccontextmanager
async def gathered(store, stored):
    """What is added to the batch inside is taken together, at the end."""
    gate = await factories.create(store)
    with stored.held(gate.id):
        start = asyncio.create_task(store.apply(factories.change(Transition.START, gate.id)))
        await until(lambda: bool(store._batchers.writes._running))
        batch = Batch(store)
        yield batch
        await batch.complete()
    await start


async def test_each_call_gets_its_own_answer(store, stored):
    """In one batch of all transitions each caller gets the outcome of its own call."""
    processing = [(await factories.reach(store, Status.PROCESSING)).id for _ in range(4)]
    pending = [(await factories.create(store)).id for _ in range(2)]
    unknown, fresh = new_operation_id(), new_operation_id()
    async with gathered(store, stored) as batch:
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
    *made, illegal, missing, created = await batch.answers()
    assert [answer.operation.id for answer in made] == [*processing, pending[0]]
    assert [str(answer.operation.status) for answer in made] == [
        "PROCESSING", "COMPLETED", "FAILED", "CANCELLED", "PROCESSING",
    ]  # fmt: skip
    assert isinstance(illegal, IllegalTransition)
    assert isinstance(missing, OperationNotFound)
    assert created.operation.id == fresh
    for answer in made:
        assert stored.operation(answer.operation.id)["revision"] == answer.operation.revision


async def test_calls_of_one_operation_keep_their_order(store, stored):
    """Calls of one operation that wait together happen one after the other, as they came."""
    operation = await factories.create(store)
    async with gathered(store, stored) as batch:
        for transition in (
            Transition.START,
            Transition.PROGRESS,
            Transition.COMPLETE,
            Transition.CANCEL,
        ):
            batch.add(store.apply(factories.change(transition, operation.id)))
    *made, refused = await batch.answers()
    assert [answer.operation.revision for answer in made] == [2, 3, 4]
    assert (type(refused), refused.status) == (IllegalTransition, Status.COMPLETED)


@pytest.mark.parametrize("transition", [Transition.START, Transition.PROGRESS])
async def test_one_bad_call_fails_only_itself(store, stored, transition):
    """A call that the database refuses is undone and told so; its neighbours happen once."""
    ids = [(await factories.create(store)).id for _ in range(4)]
    processing = [(await factories.reach(store, Status.PROCESSING)).id for _ in range(2)]
    fresh = [new_operation_id() for _ in range(2)]
    bad = ids[1]
    squat(stored, bad, 2)
    before = stored.everything(bad)
    async with gathered(store, stored) as batch:
        batch.add(store.insert(fresh[0], factories.new_operation()))
        for operation_id in (*processing, *ids):
            kind = Transition.PROGRESS if operation_id in processing else transition
            batch.add(store.apply(factories.change(kind, operation_id)))
        batch.add(store.insert(fresh[1], factories.new_operation(request_id="r-1")))
    found = await batch.answers()
    broken = found.pop(1 + len(processing) + ids.index(bad))
    assert isinstance(broken, Exception)
    assert stored.everything(bad) == before
    assert all(isinstance(answer, TransitionResult) and not answer.replayed for answer in found)
    assert stored.count() == 1 + len(ids) + len(processing) + len(fresh)
    for answer in found:
        row = stored.operation(answer.operation.id)
        assert row["revision"] == answer.operation.revision
        # One transition each, and a start before it for those that were processing.
        transitions = 3 if row["id"] in processing else 1 if row["id"] in fresh else 2
        assert row["revision"] == transitions


async def test_one_bad_create_fails_only_itself(store, stored):
    """A create that the database refuses is undone and told so; its neighbours happen once."""
    fresh = [new_operation_id() for _ in range(5)]
    squat(stored, fresh[2], 1)
    operation = await factories.create(store)
    async with gathered(store, stored) as batch:
        batch.add(store.apply(factories.change(Transition.START, operation.id)))
        for operation_id in fresh:
            batch.add(store.insert(operation_id, factories.new_operation()))
    found = await batch.answers()
    assert isinstance(found.pop(3), Exception)
    assert [answer.operation.id for answer in found] == [
        operation.id, fresh[0], fresh[1], fresh[3], fresh[4],
    ]  # fmt: skip
    assert stored.operation(fresh[2]) is None


async def test_caller_that_left_undoes_nothing(store, stored):
    """A caller that goes away while its transition is made neither undoes nor loses it."""
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
    """A caller that goes away while it waits has asked nothing; those beside it are served."""
    left, stayed = [(await factories.create(store)).id for _ in range(2)]
    async with gathered(store, stored) as batch:
        for operation_id in (left, stayed):
            batch.add(store.apply(factories.change(Transition.START, operation_id)))
        await batch.complete()
        batch.calls[0].cancel()
    gone, served = await batch.answers()
    assert isinstance(gone, asyncio.CancelledError)
    assert served.operation.status is Status.PROCESSING
    assert stored.operation(left)["revision"] == 1


async def test_callers_that_leave_at_random(store, replica, stored):
    """However many callers go away, what is stored is whole: revision, status and events agree."""
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
    """What is more than the queue holds is refused at once, and what it holds is served."""
    monkeypatch.setattr(batching, "MAX_WAITING", 5)
    ids = [(await factories.create(store)).id for _ in range(6)]
    async with gathered(store, stored) as batch:
        for operation_id in ids[:5]:
            batch.add(store.apply(factories.change(Transition.START, operation_id)))
        await batch.complete()
        with pytest.raises(Overloaded):
            await store.apply(factories.change(Transition.START, ids[5]))
    assert all(isinstance(answer, TransitionResult) for answer in await batch.answers())
    assert stored.operation(ids[5])["revision"] == 1


async def test_without_batching_it_is_the_same(engine):
    """Without batching each call is a transaction of its own, and the answers are the same."""
    batchers = Batchers(engine, batching=False)
    store = SqlOperationStore(batchers)
    try:
        ids = [(await factories.create(store)).id for _ in range(5)]
        found = await answers(
            *(store.apply(factories.change(Transition.START, each)) for each in (*ids, ids[0]))
        )
        assert [type(answer) for answer in found] == [TransitionResult] * 5 + [IllegalTransition]
    finally:
        await batchers.close()


async def test_many_reads_at_once(store):
    """Reads that are gathered get each its own operation, or its own refusal."""
    operations = [await factories.create(store) for _ in range(10)]
    unknown = new_operation_id()
    asked = [operation.id for operation in operations]
    found = await answers(
        *(
            store.get(each, factories.access_filter())
            for each in (*asked, unknown, *reversed(asked))
        )
    )
    assert found[:10] == operations
    assert isinstance(found[10], OperationNotFound)
    assert found[11:] == operations[::-1]


async def test_one_read_for_two_askers(store):
    """Who may not see an operation is not answered by the read of one who may."""
    operation = await factories.create(store)
    stranger = factories.access_filter(factories.STRANGER)
    asked = [factories.access_filter(), stranger] * 10
    found = await answers(*(store.get(operation.id, each) for each in asked))
    assert [type(answer) for answer in found] == [type(operation), OperationNotFound] * 10


async def test_closed_store_has_finished(engine, stored):
    """A store that is closed has first finished what it was asked."""
    batchers = Batchers(engine)
    store = SqlOperationStore(batchers)
    calls = [
        asyncio.create_task(store.insert(new_operation_id(), factories.new_operation()))
        for _ in range(20)
    ]
    await asyncio.sleep(0)
    await batchers.close()
    assert all(isinstance(answer, TransitionResult) for answer in await answers(*calls))
    assert stored.count() == 20


def test_squatting_is_possible(engine, stored):
    """The event that is in the way, in the tests above, is a legal row."""
    operation_id = new_operation_id()
    squat(stored, operation_id, 1)
    with engine.connect() as connection:
        found = connection.execute(sa.select(events.c.operation_id)).scalars().all()
    assert found == [operation_id]
