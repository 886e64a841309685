"""Sweeps: due operations are released, abandoned, expired or purged, and no others."""

import asyncio
import dataclasses
import tracemalloc
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.errors import (
    IllegalTransition,
    OperationExpired,
    OperationNotFound,
    StaleAttempt,
)
from milepost.domain.operation import Status
from milepost.domain.sweep import ABANDON, EXPIRE, PURGE, RELEASE, SWEEPS, Sweep
from milepost.domain.transitions import EXPIRED, LEASE_LOST, TABLE, Transition
from milepost.storage import sweeps as sweeps_module
from milepost.storage.dialects import clock, later
from milepost.storage.tables import events, operations
from tests import factories
from tests.contract.test_claims import CLAIM, LEASE, WORKER

TTL = timedelta(hours=1)
LATE = timedelta(seconds=1)
MAX_WAIT_S = 60.0
LARGE = 60
"""Operations with a large result: several times as many as one statement removes."""
LARGE_BYTES = 1 << 18
"""Bytes of each result: together more than anything else in memory."""
WRITES = (Transition.PROGRESS, Transition.COMPLETE, Transition.FAIL)


async def sweep(stores):
    """Run every sweep; return the ids of the changed operations by sweep."""
    return {each: [o.id for o in await stores.sweeps.sweep(each, 1_000)] for each in SWEEPS}


def only(due, operation):
    """Return the result of `sweep` if only this operation is due, for only this sweep."""
    return {**NOTHING, due: [operation.id]}


NOTHING: dict[Sweep, list[str]] = {each: [] for each in SWEEPS}


async def portions(stores, due):
    """Sweep all that is due; return how many operations each transaction took."""
    sizes = []
    while swept := await stores.sweeps.sweep(due, 1_000):
        sizes.append(len(swept))
    return sizes


async def claimed(stores, **overrides):
    """Return an operation that a worker has claimed."""
    await factories.create(stores.operations, **overrides)
    (operation,) = await stores.work.claim(CLAIM)
    return operation


async def test_nothing_is_due(store, stores, stored):
    """A sweep changes no operation before its lease and its expire_time end."""
    found = [await factories.reach(store, status) for status in Status]
    found.append(await claimed(stores, function=factories.FUNCTION))
    before = [stored.everything(operation.id) for operation in found]
    assert await sweep(stores) == NOTHING
    assert [stored.everything(operation.id) for operation in found] == before


async def test_lost_lease_is_released(store, stores, engine, stored):
    """An operation with a lost lease is pending again, without progress and worker."""
    operation = await claimed(stores)
    await store.apply(
        factories.change(
            Transition.PROGRESS, operation.id, access_filter=WORKER, progress=0.4, request_id="r-1"
        )
    )
    factories.age(engine, operation.id, LEASE + LATE)
    before = stored.operation(operation.id)
    assert await sweep(stores) == only(RELEASE, operation)
    after = stored.operation(operation.id)
    assert after == before | {
        "status": "PENDING",
        "revision": before["revision"] + 1,
        "progress": None,
        "progress_time": None,
        "failed_attempts": 1,
        "progress_request_id": None,
        "start_time": None,
        "worker": None,
        "lease": None,
        "lease_expire_time": None,
    }
    last = stored.events(operation.id)[-1]
    assert (last["type"], last["actor"]) == (TABLE[Transition.RELEASE].event, "milepost")
    assert last["revision"] == after["revision"]
    assert await sweep(stores) == NOTHING


async def test_lease_that_holds_is_kept(store, stores, engine, stored):
    """A lease holds until its end, counted from its last renewal."""
    operation = await claimed(stores)
    factories.age(engine, operation.id, LEASE - timedelta(seconds=10))
    await store.apply(
        factories.change(Transition.PROGRESS, operation.id, access_filter=WORKER, attempt=1)
    )
    factories.age(engine, operation.id, LEASE - timedelta(seconds=10))
    before = stored.everything(operation.id)
    assert await sweep(stores) == NOTHING
    assert stored.everything(operation.id) == before


async def test_late_worker_is_fenced_off(store, stores, engine, stored):
    """A worker with a lost lease is fenced off, and another completes the operation."""
    operation = await claimed(stores)
    factories.age(engine, operation.id, LEASE + LATE)
    await sweep(stores)
    await assert_fenced(store, stored, operation)
    (again,) = await stores.work.claim(dataclasses.replace(CLAIM, worker="wally-2"))
    assert (again.id, again.attempt, again.progress) == (operation.id, 2, None)
    await assert_fenced(store, stored, operation)
    done = factories.change(Transition.COMPLETE, operation.id, access_filter=WORKER, attempt=2)
    assert (await store.apply(done)).operation.status is Status.COMPLETED
    await assert_fenced(store, stored, operation)


async def assert_fenced(store, stored, operation):
    """Check that every write of the attempt is refused and changes nothing."""
    before = stored.everything(operation.id)
    for transition in WRITES:
        change = factories.change(
            transition,
            operation.id,
            access_filter=WORKER,
            attempt=operation.attempt,
            request_id="late",
        )
        with pytest.raises(StaleAttempt):
            await store.apply(change)
    assert stored.everything(operation.id) == before


async def test_last_attempt_is_abandoned(store, stores, engine, stored):
    """A lost lease of the last attempt fails the operation, with event and delivery."""
    operation = await claimed(stores, max_attempts=1)
    factories.age(engine, operation.id, LEASE + LATE)
    assert await sweep(stores) == only(ABANDON, operation)
    found = await store.get(operation.id, factories.access_filter())
    assert found.status is Status.FAILED
    assert [error.code for error in found.errors] == [LEASE_LOST]
    assert found.lease_expire_time is None
    assert found.expire_time >= found.complete_time + found.ttl
    assert stored.events(operation.id)[-1]["type"] == "operation.failed"
    assert stored.deliveries(operation.id)[-1]["type"] == "operation.failed"
    await assert_fenced(store, stored, operation)
    with pytest.raises(IllegalTransition):
        await store.apply(factories.change(Transition.COMPLETE, operation.id))


async def test_attempts_are_used_up(store, stores, engine):
    """An operation fails after its lease was lost in each of its attempts."""
    operation = await factories.create(store, max_attempts=3)
    for attempt in (1, 2, 3):
        (again,) = await stores.work.claim(CLAIM)
        assert again.attempt == attempt
        factories.age(engine, operation.id, LEASE + LATE)
        await sweep(stores)
    assert await stores.work.claim(CLAIM) == []
    assert (await store.get(operation.id, factories.access_filter())).status is Status.FAILED


async def test_started_operation_has_no_lease_to_lose(store, stores, engine):
    """An operation that was started without a claim has no lease to lose."""
    operation = await factories.reach(store, Status.PROCESSING, ttl=TTL)
    factories.age(engine, operation.id, TTL - timedelta(minutes=1))
    assert await sweep(stores) == NOTHING


@pytest.mark.parametrize("leased", [False, True])
async def test_expired_processing_operation_fails(store, stores, engine, stored, leased):
    """A processing operation past its expire_time fails with EXPIRED, and is kept for its ttl."""
    if leased:
        operation = await claimed(stores, ttl=TTL)
    else:
        operation = await factories.reach(store, Status.PROCESSING, ttl=TTL)
    factories.age(engine, operation.id, TTL + LATE)
    assert await sweep(stores) == only(EXPIRE, operation)
    found = await store.get(operation.id, factories.access_filter())
    assert found.status is Status.FAILED
    assert [error.code for error in found.errors] == [EXPIRED]
    assert found.expire_time == found.complete_time + TTL
    assert stored.events(operation.id)[-1]["type"] == "operation.expired"
    assert stored.deliveries(operation.id)[-1]["type"] == "operation.expired"
    assert await sweep(stores) == NOTHING


async def test_expired_pending_operation_is_forgotten(store, stores, engine, stored):
    """An expired pending operation is purged, with an event and a delivery."""
    operation = await factories.create(store, ttl=TTL)
    factories.age(engine, operation.id, TTL + LATE)
    assert await sweep(stores) == only(PURGE, operation)
    assert stored.operation(operation.id) is None
    last = stored.events(operation.id)[-1]
    assert (last["type"], last["transition"]) == ("operation.expired", "purge")
    assert last["revision"] == operation.revision + 1
    (delivery,) = stored.deliveries(operation.id)
    assert (delivery["type"], delivery["revision"]) == ("operation.expired", last["revision"])
    with pytest.raises(OperationExpired):
        await store.get(operation.id, factories.access_filter())


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_expired_terminal_operation_is_forgotten(store, stores, engine, stored, status):
    """An expired terminal operation is purged without another delivery."""
    operation = await factories.reach(store, status, ttl=TTL)
    factories.age(engine, operation.id, TTL + LATE)
    deliveries = stored.deliveries(operation.id)
    assert await sweep(stores) == only(PURGE, operation)
    assert stored.operation(operation.id) is None
    assert stored.events(operation.id)[-1]["type"] == "operation.expired"
    remaining = stored.deliveries(operation.id)
    assert [each["id"] for each in remaining] == [each["id"] for each in deliveries]
    with pytest.raises(OperationExpired):
        await store.get(operation.id, factories.access_filter())


@pytest.mark.parametrize("status", [Status.PENDING, Status.COMPLETED])
async def test_not_expired_at_its_very_time(store, stores, stored, status):
    """An operation is not purged before its expire_time."""
    operation = await factories.reach(store, status)
    soon = later(clock(), sa.literal(timedelta(seconds=30), operations.c.ttl.type))
    stored.execute(sa.update(operations).values(expire_time=soon))
    assert await sweep(stores) == NOTHING
    assert stored.operation(operation.id) is not None


async def test_sweeps_are_batches(stores, others, stored, monkeypatch):
    """A sweep changes up to max_operations, and concurrent sweeps change different ones."""
    monkeypatch.setattr(sweeps_module, "TURN_S", MAX_WAIT_S)
    old = factories.LONG_AGO + timedelta(days=1)
    rows = [factories.row(expire_time=old) for _ in range(1_500)]
    stored.execute(sa.insert(operations), rows)
    assert await stores.sweeps.due(PURGE) == 1_500
    assert await stores.sweeps.overdue(PURGE, timedelta(minutes=5), 1_000) == 1_000
    first, second = await asyncio.gather(
        stores.sweeps.sweep(PURGE, 500), others.sweeps.sweep(PURGE, 500)
    )
    assert len(first) == len(second) == 500
    assert not {o.id for o in first} & {o.id for o in second}
    assert len(await stores.sweeps.sweep(PURGE, 1_000)) == 500
    assert stored.count() == 0


async def test_removing_large_results_takes_little_memory(stores, stored):
    """A purge of large results holds only a few of them in memory."""
    large = {"result_type": "example.com/bytes", "result_value": b"x" * LARGE_BYTES}
    old = {"expire_time": factories.LONG_AGO + timedelta(days=1)}
    for _ in range(LARGE // 10):  # one insert of all would take memory itself
        rows = [factories.row(Status.COMPLETED, **large, **old) for _ in range(10)]
        stored.execute(sa.insert(operations), rows)
    tracemalloc.start()
    try:
        assert sum(await portions(stores, PURGE)) == LARGE
        assert tracemalloc.get_traced_memory()[1] < LARGE * LARGE_BYTES / 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("due", [PURGE, EXPIRE])
async def test_long_sweep_lets_others_write(stores, stored, monkeypatch, due):
    """A sweep that takes long commits what it has, where all writes wait for it."""
    monkeypatch.setattr(sweeps_module, "TURN_S", 0.0)
    status = Status.PENDING if due is PURGE else Status.PROCESSING
    old = factories.LONG_AGO + timedelta(days=1)
    rows = [factories.row(status, expire_time=old) for _ in range(5)]
    stored.execute(sa.insert(operations), rows)
    has_one_writer = stores.sweeps._batchers.database.has_one_writer
    assert await portions(stores, due) == ([1] * 5 if has_one_writer else [5])


async def test_long_purge_of_events_lets_others_write(stores, stored, monkeypatch):
    """A purge of events row by row commits a portion when its time is over; days are left alone."""
    old = factories.LONG_AGO + timedelta(days=1)
    stored.execute(sa.insert(operations), [factories.row(expire_time=old) for _ in range(3)])
    await portions(stores, PURGE)
    monkeypatch.setattr(sweeps_module, "TURN_S", 0.0)
    found = []
    while purged := await stores.sweeps.purge_events(timedelta(days=-1), 1_000):
        found.append(purged)
    assert found == ([] if stores.sweeps._batchers.database.has_event_days else [1, 1, 1])


async def test_counting_changes_nothing(store, stores, engine, stored):
    """The count of due operations changes nothing."""
    found = [
        await factories.create(store, ttl=TTL),
        await factories.reach(store, Status.PROCESSING, ttl=TTL),
        await factories.reach(store, Status.CANCELLED, ttl=TTL),
        await factories.create(store, ttl=TTL * 4),
    ]
    for operation in found:
        factories.age(engine, operation.id, TTL * 2)
    before = [stored.everything(operation.id) for operation in found]
    due = {each: await stores.sweeps.due(each) for each in SWEEPS}
    assert due == dict.fromkeys(SWEEPS, 0) | {EXPIRE: 1, PURGE: 2}
    assert [stored.everything(operation.id) for operation in found] == before


async def test_overdue_is_what_a_sweep_would_have_done(stores, engine):
    """An operation is overdue from the instant it is due until it is swept."""
    operation = await claimed(stores)
    assert await stores.sweeps.overdue(RELEASE, timedelta(), 10) == 0
    factories.age(engine, operation.id, LEASE + LATE)
    assert await stores.sweeps.overdue(RELEASE, timedelta(), 10) == 1
    assert await stores.sweeps.overdue(RELEASE, timedelta(minutes=1), 10) == 0
    await sweep(stores)
    assert await stores.sweeps.overdue(RELEASE, timedelta(), 10) == 0


async def test_events_of_the_long_gone_are_removed(store, stores, stored):
    """Events are kept while their operation exists, and for a time after its removal."""
    kept = timedelta(days=7)
    living = await factories.reach(store, Status.COMPLETED)
    gone = await factories.reach(store, Status.COMPLETED)
    recent = await factories.reach(store, Status.COMPLETED)
    for operation in (gone, recent):
        await store.delete(factories.change(Transition.PURGE, operation.id))
    old = later(events.c.time, sa.literal(-2 * kept, operations.c.ttl.type))
    aged = events.c.operation_id.in_([living.id, gone.id])
    stored.execute(sa.update(events).where(aged).values(time=old))
    assert await stores.sweeps.purge_events(kept, 1_000) == 1
    assert stored.events(gone.id) == []
    assert len(stored.events(living.id)) == 3
    assert len(stored.events(recent.id)) == 4
    with pytest.raises(OperationNotFound) as caught:
        await store.get(gone.id, factories.access_filter())
    assert type(caught.value) is OperationNotFound
    assert await stores.sweeps.purge_events(kept, 1_000) == 0


@pytest.mark.parametrize(
    "transition", [Transition.PROGRESS, Transition.COMPLETE, Transition.CANCEL]
)
async def test_sweep_races_with_the_worker(stores, replica, engine, stored, transition):
    """Of a sweep and a concurrent write, one comes first and the other sees its change."""
    for _ in range(10):
        operation = await claimed(stores)
        factories.age(engine, operation.id, LEASE + LATE)
        await asyncio.gather(
            stores.sweeps.sweep(RELEASE, 1_000),
            replica.apply(factories.change(transition, operation.id, attempt=1)),
            return_exceptions=True,
        )
        row = stored.operation(operation.id)
        assert row["status"] in {"PENDING", TABLE[transition].target}
        assert row["revision"] == len(stored.events(operation.id)) + (
            transition is Transition.PROGRESS and row["status"] == "PROCESSING"
        )
        stored.execute(sa.delete(operations))
