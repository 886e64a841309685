"""The columns that each transition writes and keeps."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.domain.transitions import Transition
from milepost.storage.tables import operations
from tests import factories

SOON = timedelta(seconds=10)
ENDS = {
    Transition.COMPLETE: "complete_time",
    Transition.FAIL: "complete_time",
    Transition.CANCEL: "cancel_time",
}


def about_now(instant):
    """Return whether the instant is aware, in UTC, and within `SOON` of now."""
    assert instant.utcoffset() == timedelta(0)
    return abs(datetime.now(UTC) - instant) < SOON


def changed(before, after):
    """Return the names of the fields that differ."""
    return {
        field.name
        for field in dataclasses.fields(before)
        if getattr(before, field.name) != getattr(after, field.name)
    }


async def test_start(store):
    """A start sets start_time, attempt and worker, and keeps the rest."""
    before = await factories.create(store, metadata='{"a":1}', version="2")
    start = factories.change(Transition.START, before.id, worker="w-1")
    after = (await store.apply(start)).operation
    assert changed(before, after) == {"status", "start_time", "revision", "attempt", "worker"}
    assert (after.attempt, after.worker, after.progress) == (1, "w-1", None)
    assert about_now(after.start_time)


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.75, 1.0])
async def test_start_with_progress(store, progress):
    """A start may set progress, 0.0 included."""
    before = await factories.create(store)
    after = (
        await store.apply(factories.change(Transition.START, before.id, progress=progress))
    ).operation
    assert after.progress == progress
    assert isinstance(after.progress, float)
    assert about_now(after.progress_time)


async def test_complete(store):
    """A complete stores the result, sets progress to 1.0 and keeps start and metadata."""
    before = await factories.reach(store, Status.PROCESSING, metadata='{"a":1}')
    after = (await store.apply(factories.change(Transition.COMPLETE, before.id))).operation
    assert changed(before, after) == {
        "status", "progress", "result", "complete_time", "expire_time", "revision",
    }  # fmt: skip
    assert (after.progress, after.result) == (1.0, factories.payload())
    assert about_now(after.complete_time)


async def test_complete_without_result(store):
    """A complete without a result leaves it absent."""
    before = await factories.reach(store, Status.PROCESSING)
    change = factories.change(Transition.COMPLETE, before.id, result=None)
    assert (await store.apply(change)).operation.result is None


async def test_fail(store):
    """A fail stores the errors and keeps progress, start and metadata."""
    started = await factories.reach(store, Status.PROCESSING, metadata='{"a":1}')
    await store.apply(factories.change(Transition.PROGRESS, started.id, progress=0.6))
    before = await store.get(started.id, factories.access_filter())
    after = (await store.apply(factories.change(Transition.FAIL, before.id))).operation
    assert changed(before, after) == {
        "status", "errors", "complete_time", "expire_time", "revision",
    }  # fmt: skip
    assert after.errors == (factories.error(),)
    assert after.progress == 0.6
    assert about_now(after.complete_time)


async def test_fail_of_what_was_never_started(store):
    """A pending operation that fails has no start_time."""
    before = await factories.create(store)
    after = (await store.apply(factories.change(Transition.FAIL, before.id))).operation
    assert (after.status, after.start_time, after.attempt) == (Status.FAILED, None, 0)


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING])
async def test_cancel(store, status):
    """A cancel sets cancel_time, and keeps the rest."""
    before = await factories.reach(store, status, metadata='{"a":1}')
    await asyncio.sleep(factories.TICK_S)  # in the same tick, the expire_time stays
    after = (await store.apply(factories.change(Transition.CANCEL, before.id))).operation
    assert changed(before, after) == {"status", "cancel_time", "expire_time", "revision"}
    assert about_now(after.cancel_time)
    assert await store.get(before.id, factories.access_filter()) == after


@pytest.mark.parametrize("transition", ENDS)
async def test_end_is_kept_for_a_full_ttl(store, engine, transition):
    """A terminal transition sets expire_time to its own time plus the ttl."""
    ttl = timedelta(minutes=10)
    before = await factories.reach(store, Status.PROCESSING, ttl=ttl)
    factories.age(engine, before.id, timedelta(minutes=9))
    after = (await store.apply(factories.change(transition, before.id))).operation
    assert after.expire_time == getattr(after, ENDS[transition]) + ttl
    assert after.expire_time > before.expire_time


@pytest.mark.parametrize("transition", ENDS)
async def test_end_never_shortens_the_life(store, stored, transition):
    """A terminal transition keeps an expire_time that is later than its own time plus the ttl."""
    before = await factories.reach(store, Status.PROCESSING)
    stored.execute(
        sa.update(operations)
        .where(operations.c.id == before.id)
        .values(expire_time=factories.FAR_AWAY)
    )
    after = (await store.apply(factories.change(transition, before.id))).operation
    assert after.expire_time == factories.FAR_AWAY


@pytest.mark.parametrize("transition", ENDS)
async def test_end_is_never_before_the_start(store, engine, transition):
    """After the clock was set back, an end time equals the start_time."""
    before = await factories.reach(store, Status.PROCESSING)
    factories.age(engine, before.id, -timedelta(hours=1))
    after = (await store.apply(factories.change(transition, before.id))).operation
    assert getattr(after, ENDS[transition]) == after.start_time
    assert after.expire_time == after.start_time + after.ttl
