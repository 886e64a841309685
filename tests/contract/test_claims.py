"""Claims: pending operations are leased, each to one worker, and owners take turns."""

import asyncio
import dataclasses
from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.claim import ClaimRequest
from milepost.domain.errors import IllegalTransition, StaleAttempt
from milepost.domain.operation import Status
from milepost.domain.transitions import Transition
from milepost.storage.tables import operations
from tests import factories
from tests.contract.stored import answers

LEASE = timedelta(seconds=30)
CLAIM = ClaimRequest(
    functions=(factories.FUNCTION,),
    max_operations=1,
    max_bytes=factories.PLENTY,
    lease=LEASE,
    actor="wally",
    worker="wally-1",
)
WORKER = factories.access_filter("wally", functions=("video.*",))


def claim(**overrides):
    """Return `CLAIM` with other values for some fields."""
    return dataclasses.replace(CLAIM, **overrides)


async def test_claim_leases_a_pending_operation(store, stores, stored):
    """A claimed operation is processing, with a lease, its next attempt and one event."""
    before = await factories.create(store)
    (after,) = await stores.work.claim(CLAIM)
    assert (after.id, after.status) == (before.id, Status.PROCESSING)
    assert (after.revision, after.attempt) == (before.revision + 1, 1)
    assert after.worker == "wally-1"
    assert after.lease_expire_time == after.start_time + LEASE
    last = stored.events(before.id)[-1]
    assert (last["type"], last["transition"], last["actor"]) == (
        "operation.started",
        "claim",
        "wally",
    )
    assert last["revision"] == after.revision
    assert stored.deliveries(before.id)[-1]["type"] == "operation.started"
    assert await store.get(before.id, factories.access_filter()) == after


async def test_nothing_to_claim(store, stores, stored):
    """A claim without pending operations of its functions returns an empty list."""
    other = await factories.create(store, function="video.cut")
    await factories.reach(store, Status.PROCESSING)
    await factories.reach(store, Status.COMPLETED)
    before = stored.everything(other.id)
    assert await stores.work.claim(claim(max_operations=100)) == []
    assert stored.everything(other.id) == before


async def test_expired_work_is_not_claimed(store, stores, engine, stored):
    """An expired pending operation is not claimed."""
    ttl = timedelta(hours=1)
    operation = await factories.create(store, ttl=ttl)
    factories.age(engine, operation.id, ttl + timedelta(seconds=1))
    before = stored.everything(operation.id)
    assert await stores.work.pending([factories.FUNCTION]) == []
    assert await stores.work.claim(CLAIM) == []
    assert stored.everything(operation.id) == before


async def test_oldest_first(store, stores):
    """A claim takes the oldest operations of an owner first, up to max_operations."""
    ids = [(await factories.create(store)).id for _ in range(5)]
    first = await stores.work.claim(claim(max_operations=2))
    rest = await stores.work.claim(claim(max_operations=100))
    created = sorted((o.create_time, o.id) for o in [*first, *rest])
    assert {o.id for o in first} == {operation_id for _, operation_id in created[:2]}
    assert {o.id for o in rest} == set(ids) - {o.id for o in first}


async def test_owners_take_turns(store, stores):
    """Each owner with work is served once before one is served again."""
    for _ in range(6):
        await factories.create(store, owner="busy")
    for owner in ("ann", "zoe"):
        await factories.create(store, owner=owner)
    owners = [(await stores.work.claim(CLAIM))[0].owner for _ in range(8)]
    assert sorted(owners[:3]) == ["ann", "busy", "zoe"]
    assert owners[3:] == ["busy"] * 5


@pytest.mark.parametrize("max_operations", [3, 40])
async def test_owners_share_one_answer(store, stores, max_operations):
    """One claim takes an operation of each owner before a second one of any."""
    for owner in range(40):
        for _ in range(2):
            await factories.create(store, owner=f"owner-{owner:02}")
    claimed = await stores.work.claim(claim(max_operations=max_operations))
    assert len(claimed) == max_operations
    assert len({operation.owner for operation in claimed}) >= min(max_operations, 16)


async def test_functions_take_turns(store, stores):
    """A claim takes work of each of its functions, and of no other."""
    functions = ("video.a", "video.b", "audio.c")
    for function in functions:
        await factories.create(store, function=function)
    request = claim(functions=functions[:2], max_operations=10)
    assert sorted(o.function for o in await stores.work.claim(request)) == ["video.a", "video.b"]
    assert await stores.work.claim(request) == []
    assert await stores.work.pending(functions) == ["audio.c"]


@pytest.mark.parametrize("size", [1_000])
async def test_each_operation_goes_to_one_worker(stores, others, stored, size):
    """Eight workers on two replicas claim each operation exactly once."""
    owners = [f"owner-{n}" for n in range(10)]
    rows = [factories.row(owner=owners[n % 10]) for n in range(size)]
    stored.execute(sa.insert(operations), rows)

    counts = Counter[str]()

    async def work(work_store):
        while await work_store.pending([factories.FUNCTION]):
            counts.update(
                [operation.id for operation in await work_store.claim(claim(max_operations=7))]
            )

    async with asyncio.timeout(50):
        await asyncio.gather(*(work(work_store) for work_store in [stores.work, others.work] * 4))
    assert set(counts.values()) == {1}
    assert set(counts) == {row["id"] for row in rows}
    assert all(stored.operation(operation_id)["attempt"] == 1 for operation_id in counts)


async def test_progress_renews_the_lease(store, stores, engine):
    """A report of progress, with or without a value, renews the lease."""
    await factories.create(store)
    (claimed,) = await stores.work.claim(CLAIM)
    factories.age(engine, claimed.id, timedelta(seconds=20))
    for progress in (0.5, None):
        change = factories.change(
            Transition.PROGRESS, claimed.id, access_filter=WORKER, attempt=1, progress=progress
        )
        renewed = (await store.apply(change)).operation
        assert renewed.lease_expire_time == renewed.progress_time + LEASE
        assert renewed.status is Status.PROCESSING


async def test_attempt_stands_until_the_sweep(store, stores, engine):
    """A worker whose lease has expired may still renew it before the sweep."""
    await factories.create(store)
    (claimed,) = await stores.work.claim(CLAIM)
    factories.age(engine, claimed.id, LEASE * 2)
    change = factories.change(
        Transition.PROGRESS, claimed.id, access_filter=WORKER, attempt=1, progress=0.5
    )
    renewed = (await store.apply(change)).operation
    assert renewed.lease_expire_time == renewed.progress_time + LEASE


@pytest.mark.parametrize("transition", [Transition.COMPLETE, Transition.FAIL, Transition.CANCEL])
async def test_the_end_ends_the_lease(store, stores, stored, transition):
    """A terminal operation has no lease, and cannot be claimed."""
    operation = await factories.create(store)
    await stores.work.claim(CLAIM)
    ended = (await store.apply(factories.change(transition, operation.id))).operation
    assert ended.lease_expire_time is None
    assert stored.operation(operation.id)["lease"] is None
    assert await stores.work.claim(CLAIM) == []


async def test_claimed_operation_is_not_started(store, stores):
    """The start of a claimed operation is an illegal transition."""
    operation = await factories.create(store)
    await stores.work.claim(CLAIM)
    with pytest.raises(IllegalTransition):
        await store.apply(factories.change(Transition.START, operation.id))


@pytest.mark.parametrize("transition", [Transition.PROGRESS, Transition.COMPLETE, Transition.FAIL])
async def test_no_attempt_runs_while_pending(store, stored, transition):
    """A write of an attempt to a pending operation is refused as stale."""
    operation = await factories.create(store)
    stored.execute(sa.update(operations).values(attempt=1))  # as a release leaves it
    before = stored.everything(operation.id)
    with pytest.raises(StaleAttempt):
        await store.apply(factories.change(transition, operation.id, attempt=1))
    assert stored.everything(operation.id) == before


async def test_claim_and_cancel_race(store, stores, replica):
    """An operation that is claimed and cancelled concurrently ends cancelled."""
    for _ in range(10):
        operation = await factories.create(store)
        await answers(
            stores.work.claim(CLAIM),
            replica.apply(factories.change(Transition.CANCEL, operation.id)),
        )
        found = await store.get(operation.id, factories.access_filter())
        assert found.status is Status.CANCELLED
