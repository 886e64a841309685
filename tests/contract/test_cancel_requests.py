"""Requested cancels: the grace, the receipt, and who ended the operation."""

import asyncio
from datetime import timedelta

import pytest

from milepost.domain.errors import CancellationNotRequested, IllegalTransition
from milepost.domain.operation import Status
from milepost.domain.sweep import CANCEL, CANCEL_LOST, RELEASE
from milepost.domain.transitions import TABLE, TERMINAL, Transition
from tests import factories
from tests.contract.stored import answers, history_of
from tests.contract.test_claims import LEASE, WORKER, claim

ONE = claim()
GRACE = timedelta(minutes=1)
LATE = timedelta(seconds=1)


def request_cancel(operation, **overrides):
    """Return the request of the owner to cancel the operation."""
    fields = {"grace": GRACE, "reason": "too slow", **overrides}
    return factories.change(Transition.REQUEST_CANCEL, operation.id, **fields)


def by_worker(transition, operation, **overrides):
    """Return a request of the worker of the operation."""
    fields = {"access_filter": WORKER, "attempt": operation.attempt, **overrides}
    return factories.change(transition, operation.id, **fields)


async def claimed(stores, **overrides):
    """Return an operation that a worker has claimed."""
    await factories.create(stores.operations, **overrides)
    (operation,) = await stores.work.claim(ONE)
    return operation


async def cancelling(stores, **overrides):
    """Return an operation whose cancel was requested."""
    operation = await claimed(stores, **overrides)
    return (await stores.operations.apply(request_cancel(operation))).operation


async def test_operation_stays_with_its_worker(stores, stored):
    """A requested cancel leaves the operation processing, and records the request."""
    asked = await cancelling(stores)
    assert (asked.status, asked.cancel_reason) == (Status.PROCESSING, "too slow")
    assert asked.cancel_expire_time == asked.cancel_request_time + GRACE
    assert asked.cancel_delivered_time is None
    assert asked.cancel_time is None
    last = stored.events(asked.id)[-1]
    assert (last["type"], last["revision"]) == ("operation.cancel_requested", asked.revision)
    assert last["reason"] == "too slow"
    assert stored.deliveries(asked.id)[-1]["type"] == "operation.cancel_requested"


async def test_pending_operation_is_cancelled_at_once(store, stored):
    """Without a worker nobody needs a grace."""
    operation = await factories.create(store)
    result = await store.apply(request_cancel(operation, request_id="r-1"))
    assert result.transition is Transition.CANCEL
    assert (result.operation.status, result.operation.cancel_reason) == (
        Status.CANCELLED,
        "too slow",
    )
    assert stored.events(operation.id)[-1]["type"] == "operation.cancelled"
    assert (await store.apply(request_cancel(operation, request_id="r-1"))).replayed


async def test_next_write_of_the_worker_is_the_receipt(store, stores):
    """The first progress after the request records that its answer told the worker."""
    asked = await cancelling(stores)
    told = (await store.apply(by_worker(Transition.PROGRESS, asked))).operation
    assert told.cancel_request_time == asked.cancel_request_time
    assert told.cancel_delivered_time >= asked.cancel_request_time
    again = (await store.apply(by_worker(Transition.PROGRESS, asked))).operation
    assert again.cancel_delivered_time == told.cancel_delivered_time


@pytest.mark.parametrize(
    ("transition", "status"),
    [
        (Transition.ACKNOWLEDGE, Status.CANCELLED),
        (Transition.COMPLETE, Status.COMPLETED),
        (Transition.FAIL, Status.FAILED),
        (Transition.RETRY, Status.FAILED),
        (Transition.RELEASE, Status.CANCELLED),
    ],
)
async def test_worker_ends_the_operation(store, stores, transition, status):
    """The worker acknowledges, completes or fails; it cannot send the operation to another one."""
    asked = await cancelling(stores)
    ended = (await store.apply(by_worker(transition, asked))).operation
    assert (ended.status, ended.cancel_expire_time) == (status, None)
    assert ended.cancel_request_time == asked.cancel_request_time
    assert ended.cancel_reason == "too slow"
    events = await history_of(stores, asked, after=asked.revision)
    assert [event.actor for event in events] == ["wally"]


async def test_acknowledgement_is_a_receipt(store, stores):
    """A worker that acknowledges before its first report has received the request then."""
    asked = await cancelling(stores)
    ended = (await store.apply(by_worker(Transition.ACKNOWLEDGE, asked))).operation
    assert ended.cancel_delivered_time == ended.cancel_time is not None


async def test_grace_ends(store, stores, engine):
    """At the end of the grace the sweeper cancels, and later writes of the worker are refused."""
    asked = await cancelling(stores)
    assert await stores.sweeps.sweep(CANCEL, 10) == []
    factories.age(engine, asked.id, GRACE + LATE)
    (swept,) = await stores.sweeps.sweep(CANCEL, 10)
    assert (swept.status, swept.cancel_reason) == (Status.CANCELLED, "too slow")
    with pytest.raises(IllegalTransition):
        await store.apply(by_worker(Transition.COMPLETE, asked))


@pytest.mark.parametrize("released", [True, False], ids=["release", "sweep"])
async def test_cancel_reason_is_that_of_the_request(store, stores, engine, released):
    """The reasons of a release and of a sweep stay in their events."""
    operation = await claimed(stores)
    asked = (await store.apply(request_cancel(operation, reason=None))).operation
    if released:
        release = by_worker(Transition.RELEASE, asked, reason="shutdown")
        ended = (await store.apply(release)).operation
    else:
        factories.age(engine, asked.id, GRACE + LATE)
        (ended,) = await stores.sweeps.sweep(CANCEL, 10)
    assert (ended.status, ended.cancel_reason) == (Status.CANCELLED, None)
    (event,) = await history_of(stores, asked, after=asked.revision)
    assert event.reason == ("shutdown" if released else CANCEL.reason)


async def test_lost_lease_ends_a_requested_cancel(stores, engine):
    """An operation whose worker is gone does not go to another one after a requested cancel."""
    asked = await cancelling(stores)
    factories.age(engine, asked.id, LEASE + LATE)
    assert await stores.sweeps.sweep(RELEASE, 10) == []
    (swept,) = await stores.sweeps.sweep(CANCEL_LOST, 10)
    assert swept.status is Status.CANCELLED


async def test_second_request_moves_the_end_of_the_grace(store, stores):
    """A second request changes the grace and keeps the time of the first."""
    asked = await cancelling(stores)
    sooner = (
        await store.apply(request_cancel(asked, grace=timedelta(seconds=1), reason=None))
    ).operation
    assert sooner.cancel_request_time == asked.cancel_request_time
    assert sooner.cancel_expire_time < asked.cancel_expire_time
    assert sooner.cancel_reason == "too slow"


async def test_cancel_without_grace_after_a_request(store, stores):
    """A cancel without a grace ends the operation at once, also after a request."""
    asked = await cancelling(stores)
    ended = (await store.apply(factories.change(Transition.CANCEL, asked.id))).operation
    assert ended.status is Status.CANCELLED


async def test_acknowledgement_needs_a_request(store, stores, stored):
    """A worker cannot cancel an operation by itself."""
    operation = await claimed(stores)
    before = stored.everything(operation.id)
    with pytest.raises(CancellationNotRequested):
        await store.apply(by_worker(Transition.ACKNOWLEDGE, operation))
    assert stored.everything(operation.id) == before


async def test_races_have_one_end(stores, replica, engine, stored):
    """Acknowledgement, completion, cancel and the end of the grace at once: one of them ends it."""
    for _ in range(10):
        asked = await cancelling(stores)
        factories.age(engine, asked.id, GRACE - timedelta(milliseconds=2))
        await asyncio.gather(
            answers(
                stores.operations.apply(by_worker(Transition.ACKNOWLEDGE, asked)),
                replica.apply(by_worker(Transition.COMPLETE, asked)),
                replica.apply(factories.change(Transition.CANCEL, asked.id)),
            ),
            stores.sweeps.sweep(CANCEL, 10),
        )
        row = stored.operation(asked.id)
        assert row["status"] in TERMINAL
        ends = [
            event
            for event in stored.events(asked.id)
            if TABLE[Transition(event["transition"])].target in TERMINAL
        ]
        assert len(ends) == 1
        assert row["revision"] == ends[0]["revision"]
