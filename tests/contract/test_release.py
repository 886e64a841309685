"""Releases by workers: an operation goes back, at once or delayed, and its attempt is over."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.errors import IllegalTransition, OperationNotFound, StaleAttempt
from milepost.domain.operation import Status
from milepost.domain.sweep import ABANDON, RELEASE
from milepost.domain.transitions import TABLE, Transition
from milepost.storage.dialects import clock, later
from milepost.storage.tables import operations
from tests import factories
from tests.contract.stored import answers
from tests.contract.test_claims import LEASE, WORKER, claim

DELAY = timedelta(minutes=10)
LATE = timedelta(seconds=1)
ONE = claim()
ALL = claim(max_operations=100)


def release(operation, **overrides):
    """Return the request of the worker to release its attempt of the operation."""
    fields = {"access_filter": WORKER, "attempt": operation.attempt, **overrides}
    return factories.change(Transition.RELEASE, operation.id, **fields)


async def claimed(stores, **overrides):
    """Return an operation that a worker has claimed."""
    await factories.create(stores.operations, **overrides)
    (operation,) = await stores.work.claim(ONE)
    return operation


async def test_released_operation_is_claimable_at_once(store, stores, stored):
    """A released operation is pending, without the traces of its attempt, and is claimed again."""
    operation = await claimed(stores)
    await store.apply(
        factories.change(Transition.PROGRESS, operation.id, access_filter=WORKER, progress=0.4)
    )
    before = stored.operation(operation.id)
    released = (await store.apply(release(operation, reason="shutdown"))).operation
    assert (released.status, released.attempt, released.failed_attempts) == (Status.PENDING, 1, 0)
    assert stored.operation(operation.id) == before | {
        "status": "PENDING",
        "revision": before["revision"] + 1,
        "progress": None,
        "progress_time": None,
        "start_time": None,
        "worker": None,
        "lease": None,
        "lease_expire_time": None,
    }
    last = stored.events(operation.id)[-1]
    assert (last["type"], last["actor"]) == (TABLE[Transition.RELEASE].event, "wally")
    assert (last["reason"], last["revision"]) == ("shutdown", released.revision)
    (again,) = await stores.work.claim(ONE)
    assert (again.id, again.attempt, again.failed_attempts) == (operation.id, 2, 0)


async def test_delayed_operation_is_not_claimed_before(store, stores, engine):
    """An operation that was released with a delay is claimed only after it."""
    operation = await claimed(stores)
    released = (await store.apply(release(operation, delay=DELAY))).operation
    assert released.next_attempt_time > released.create_time + DELAY - LATE
    found = await stores.work.wake_due(10)
    assert found.functions == ()
    assert timedelta() < found.next_due <= DELAY
    assert await stores.work.claim(ALL) == []
    factories.age(engine, operation.id, DELAY)
    found = await stores.work.wake_due(10)
    assert (found.functions, found.next_due) == ((factories.FUNCTION,), None)
    woken = await store.get(operation.id, factories.access_filter())
    assert (woken.next_attempt_time, woken.revision) == (None, released.revision)
    (again,) = await stores.work.claim(ALL)
    assert (again.id, again.attempt) == (operation.id, 2)


async def test_delayed_operation_is_started_by_its_id(store, stores):
    """The owner may start a delayed operation without waiting."""
    operation = await claimed(stores)
    await store.apply(release(operation, delay=DELAY))
    started = (await store.apply(factories.change(Transition.START, operation.id))).operation
    assert (started.status, started.attempt) == (Status.PROCESSING, 2)
    assert started.next_attempt_time is None


async def test_release_keeps_the_place(store, stores):
    """Without a delay, or with none that lasts, an operation keeps its place before later ones."""
    first = await factories.create(store)
    await asyncio.sleep(factories.TICK_S)  # of two in one tick, either may be the earlier one
    await factories.create(store)
    for delay in (None, timedelta()):
        (operation,) = await stores.work.claim(ONE)
        assert operation.id == first.id
        released = (await store.apply(release(operation, delay=delay))).operation
        assert released.next_attempt_time is None


async def test_release_is_no_failed_attempt(store, stores, engine):
    """However often workers release an operation, only lost leases use up its attempts."""
    operation = await factories.create(store, max_attempts=2)
    for _ in range(5):
        (again,) = await stores.work.claim(ONE)
        await store.apply(release(again))
    for failed, sweep in ((1, RELEASE), (2, ABANDON)):
        await stores.work.claim(ONE)
        factories.age(engine, operation.id, LEASE + LATE)
        for other in {RELEASE, ABANDON} - {sweep}:
            assert await stores.sweeps.sweep(other, 10) == []
        (swept,) = await stores.sweeps.sweep(sweep, 10)
        assert (swept.attempt, swept.failed_attempts) == (5 + failed, failed)
    found = await store.get(operation.id, factories.access_filter())
    assert found.status is Status.FAILED


async def test_late_release_is_fenced_off(store, stores, engine, stored):
    """A release of an earlier attempt is refused as stale, and changes nothing."""
    operation = await claimed(stores)
    await store.apply(release(operation))
    await assert_stale(store, stored, operation)
    (again,) = await stores.work.claim(ONE)
    await assert_stale(store, stored, operation)
    factories.age(engine, operation.id, LEASE + LATE)
    await stores.sweeps.sweep(RELEASE, 10)
    await assert_stale(store, stored, again)


async def assert_stale(store, stored, operation):
    """Check that a release of the attempt is refused as stale, and changes nothing."""
    before = stored.everything(operation.id)
    with pytest.raises(StaleAttempt):
        await store.apply(release(operation, request_id="late"))
    assert stored.everything(operation.id) == before


async def test_repeated_release_is_replayed(store, stores, stored):
    """A release with the same request_id returns the operation as it is, and changes nothing."""
    operation = await claimed(stores)
    first = await store.apply(release(operation, request_id="r-1"))
    await stores.work.claim(ONE)
    before = stored.everything(operation.id)
    again = await store.apply(release(operation, request_id="r-1"))
    assert (first.replayed, again.replayed) == (False, True)
    assert again.operation.attempt == 2
    assert stored.everything(operation.id) == before


async def test_only_owner_and_worker_release(store, stores):
    """The owner releases its operation without the attempt; to a stranger it does not exist."""
    operation = await claimed(stores)
    with pytest.raises(OperationNotFound):
        await store.apply(
            release(operation, access_filter=factories.access_filter(factories.STRANGER))
        )
    mine = factories.access_filter()
    released = await store.apply(release(operation, access_filter=mine, attempt=None))
    assert released.operation.status is Status.PENDING
    with pytest.raises(IllegalTransition):
        await store.apply(release(operation, access_filter=mine, attempt=None))


async def test_delayed_work_of_one_owner_hides_no_other(store, stores, stored):
    """Claims skip an owner whose work is delayed, and take the due work around it."""
    soon = later(clock(), sa.literal(DELAY, operations.c.ttl.type))
    rows = [factories.row(owner="m-delayed") for _ in range(500)]
    stored.execute(sa.insert(operations), rows)
    stored.execute(sa.update(operations).values(next_attempt_time=soon))
    assert (await stores.work.wake_due(1_000)).functions == ()
    for owner in ("a", "z"):
        await factories.create(store, owner=owner)
    owners = {(await stores.work.claim(ONE))[0].owner for _ in range(2)}
    assert owners == {"a", "z"}
    assert await stores.work.claim(ALL) == []


async def test_due_operations_are_woken_by_one_replica_each(stores, others, stored):
    """Replicas that wake due work at once wake each operation once."""
    rows = [factories.row() for _ in range(200)]
    stored.execute(sa.insert(operations), rows)
    stored.execute(sa.update(operations).values(next_attempt_time=operations.c.create_time))
    found = await asyncio.gather(stores.work.wake_due(150), others.work.wake_due(150))
    again = await stores.work.wake_due(150)
    assert sum(len(due.functions) for due in (*found, again)) == len(rows)


@pytest.mark.parametrize("transition", [Transition.COMPLETE, Transition.CANCEL])
async def test_release_races_with_an_end(store, stores, replica, stored, transition):
    """Of a release and a concurrent end, each happens as a whole and in some order."""
    for _ in range(10):
        operation = await claimed(stores)
        await answers(
            store.apply(release(operation)),
            replica.apply(factories.change(transition, operation.id)),
        )
        row = stored.operation(operation.id)
        assert row["status"] in {"PENDING", TABLE[transition].target}
        assert row["revision"] == len(stored.events(operation.id))
        stored.execute(sa.delete(operations))


async def test_release_races_with_the_sweeper(stores, replica, engine, stored):
    """A lost lease that is released and swept at once goes back exactly once."""
    for _ in range(10):
        operation = await claimed(stores)
        factories.age(engine, operation.id, LEASE + LATE)
        await asyncio.gather(
            stores.sweeps.sweep(RELEASE, 10),
            replica.apply(release(operation)),
            return_exceptions=True,
        )
        row = stored.operation(operation.id)
        assert (row["status"], row["revision"]) == ("PENDING", operation.revision + 1)
        stored.execute(sa.delete(operations))
