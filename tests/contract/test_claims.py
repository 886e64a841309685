"""Claims: pending work is leased, each operation to one worker, owner after owner."""

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
    functions=(factories.FUNCTION,), max_operations=1, lease=LEASE, actor="wally", worker="wally-1"
)
WORKER = factories.access_filter("wally", functions=("video.*",))


def claim(**overrides):
    """What a worker asks for; `overrides` replace its fields."""
    return dataclasses.replace(CLAIM, **overrides)


async def test_claim_leases_a_pending_operation(store, stores, stored):
    """A claimed operation is processing, leased, at its next attempt, with one event."""
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
    """Without pending work of these functions, a claim is answered with nothing."""
    other = await factories.create(store, function="video.cut")
    await factories.reach(store, Status.PROCESSING)
    await factories.reach(store, Status.COMPLETED)
    before = stored.everything(other.id)
    assert await stores.work.claim(claim(max_operations=100)) == []
    assert stored.everything(other.id) == before


async def test_expired_work_is_not_claimed(store, stores, engine, stored):
    """A pending operation past its time is as if it did not exist."""
    ttl = timedelta(hours=1)
    operation = await factories.create(store, ttl=ttl)
    factories.age(engine, operation.id, ttl + timedelta(seconds=1))
    before = stored.everything(operation.id)
    assert await stores.work.pending([factories.FUNCTION]) == []
    assert await stores.work.claim(CLAIM) == []
    assert stored.everything(operation.id) == before


async def test_oldest_first(store, stores):
    """Of one owner the oldest work is claimed first, and never more than was asked for."""
    ids = [(await factories.create(store)).id for _ in range(5)]
    first = await stores.work.claim(claim(max_operations=2))
    rest = await stores.work.claim(claim(max_operations=100))
    created = sorted((o.create_time, o.id) for o in [*first, *rest])
    assert {o.id for o in first} == {operation_id for _, operation_id in created[:2]}
    assert {o.id for o in rest} == set(ids) - {o.id for o in first}


async def test_owners_take_turns(store, stores):
    """A busy owner does not keep others waiting: each is served before one is served again."""
    for _ in range(6):
        await factories.create(store, owner="busy")
    for owner in ("ann", "zoe"):
        await factories.create(store, owner=owner)
    owners = [(await stores.work.claim(CLAIM))[0].owner for _ in range(8)]
    assert sorted(owners[:3]) == ["ann", "busy", "zoe"]
    assert owners[3:] == ["busy"] * 5


@pytest.mark.parametrize("most", [3, 40])
async def test_owners_share_one_answer(store, stores, most):
    """One answer holds work of as many owners as there are, before a second one of any."""
    for owner in range(40):
        for _ in range(2):
            await factories.create(store, owner=f"owner-{owner:02}")
    claimed = await stores.work.claim(claim(max_operations=most))
    assert len(claimed) == most
    assert len({operation.owner for operation in claimed}) >= min(most, 16)


async def test_functions_take_turns(store, stores):
    """Work of every function that was asked for is claimed, and of no other."""
    functions = ("video.a", "video.b", "audio.c")
    for function in functions:
        await factories.create(store, function=function)
    asked = claim(functions=functions[:2], max_operations=10)
    assert sorted(o.function for o in await stores.work.claim(asked)) == ["video.a", "video.b"]
    assert await stores.work.claim(asked) == []
    assert await stores.work.pending(functions) == ["audio.c"]


@pytest.mark.parametrize("size", [1_000])
async def test_each_operation_goes_to_one_worker(stores, others, stored, size):
    """Eight claimers over two replicas share the work: each operation is claimed exactly once."""
    owners = [f"owner-{n}" for n in range(10)]
    rows = [factories.row(owner=owners[n % 10]) for n in range(size)]
    stored.execute(sa.insert(operations), rows)

    counts = Counter[str]()

    async def work(over):
        while await over.pending([factories.FUNCTION]):
            counts.update([operation.id for operation in await over.claim(claim(max_operations=7))])

    async with asyncio.timeout(50):
        await asyncio.gather(*(work(over) for over in [stores.work, others.work] * 4))
    assert set(counts.values()) == {1}
    assert set(counts) == {row["id"] for row in rows}
    assert all(stored.operation(operation_id)["attempt"] == 1 for operation_id in counts)


async def test_progress_renews_the_lease(store, stores, engine):
    """Progress, with or without a number, holds the operation for another lease."""
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
    """A worker that is late, but whose operation nobody has taken away, goes on."""
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
    """What has ended is held by nobody, and cannot be claimed again."""
    operation = await factories.create(store)
    await stores.work.claim(CLAIM)
    ended = (await store.apply(factories.change(transition, operation.id))).operation
    assert ended.lease_expire_time is None
    assert stored.operation(operation.id)["lease"] is None
    assert await stores.work.claim(CLAIM) == []


async def test_claimed_operation_is_not_started(store, stores):
    """A second start of a claimed operation is an illegal transition, whoever asks."""
    operation = await factories.create(store)
    await stores.work.claim(CLAIM)
    with pytest.raises(IllegalTransition):
        await store.apply(factories.change(Transition.START, operation.id))


@pytest.mark.parametrize("transition", [Transition.PROGRESS, Transition.COMPLETE, Transition.FAIL])
async def test_no_attempt_runs_while_pending(store, stored, transition):
    """A write of some attempt to what is pending is aborted: whatever attempt it was is over."""
    operation = await factories.create(store)
    stored.execute(sa.update(operations).values(attempt=1))  # as a release leaves it
    before = stored.everything(operation.id)
    with pytest.raises(StaleAttempt):
        await store.apply(factories.change(transition, operation.id, attempt=1))
    assert stored.everything(operation.id) == before


async def test_claim_and_cancel_race(store, stores, replica):
    """Whichever comes first, a claim never revives what was cancelled."""
    for _ in range(10):
        operation = await factories.create(store)
        await answers(
            stores.work.claim(CLAIM),
            replica.apply(factories.change(Transition.CANCEL, operation.id)),
        )
        found = await store.get(operation.id, factories.access_filter())
        assert found.status is Status.CANCELLED
