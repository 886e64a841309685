"""How progress streams end, and what is left of them."""

import asyncio
import contextlib

import pytest

from milepost.domain.errors import Draining
from milepost.tracking import progress_streams
from milepost.tracking.reports import Update
from tests.unit.in_memory_service import ALICE, INTERVAL_S, reporting, told
from tests.waiting import until


async def test_end_of_the_worker_commits_the_last(house):
    """When the worker says no more, what is pending is committed at once, and then told."""
    async with reporting(house) as (stream, operation_id):
        stream.offer(Update(id=operation_id, progress=0.4))
        stream.finish()
        assert (await told(stream)).revision == 3
        assert await told(stream) is None
        stream.offer(Update(id=operation_id, progress=0.5))
        assert await told(stream) is None


async def test_drain_commits_and_sends_away(house):
    """A replica that stops commits what is pending, says so, and sends the worker elsewhere."""
    async with reporting(house) as (stream, operation_id):
        stream.offer(Update(id=operation_id, progress=0.4))
        house.streams.drain()
        assert (await told(stream)).revision == 3
        with pytest.raises(Draining):
            await told(stream)


async def test_nothing_is_left_of_a_stream(house):
    """When the stream ends, in whatever way, no task, listener or update is left of it."""
    with contextlib.suppress(ZeroDivisionError):
        async with reporting(house) as (stream, operation_id):
            stream.offer(Update(id=operation_id, progress=0.4))
            raise ZeroDivisionError
    assert not house.subscriptions._listeners
    assert not house.pending._holders
    assert not house.streams._due
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_timeout_of_the_body_stays_a_timeout(house):
    """A timeout inside of a stream is not taken for a drain."""
    with pytest.raises(TimeoutError):
        async with house.streams.open(ALICE):
            raise TimeoutError


async def test_who_does_not_read_is_left_behind(house, monkeypatch):
    """A drain waits for a worker that does not read, but not for ever."""
    monkeypatch.setattr(progress_streams, "FAREWELL_S", 0.01)

    async def stay() -> None:
        async with house.streams.open(ALICE):
            house.streams.drain()
            house.streams.drain()
            await asyncio.Event().wait()

    with pytest.raises(Draining):
        await stay()


async def test_end_during_a_commit(house):
    """A stream may end while a commit runs."""
    async with reporting(house) as (stream, operation_id):
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, progress=0.2))
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
