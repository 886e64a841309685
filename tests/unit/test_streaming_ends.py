"""Ends of progress streams."""

import asyncio
import contextlib

import pytest

from milepost.domain.errors import Draining
from milepost.tracking import progress_stream
from milepost.tracking.progress_messages import ProgressUpdate
from tests.unit.in_memory_service import ALICE, INTERVAL_S, next_item, reporting
from tests.waiting import until


async def test_end_of_the_worker_commits_the_last(replica):
    """When the worker ends the stream, pending progress is committed and acknowledged at once."""
    async with reporting(replica) as (stream, operation_id):
        stream.offer(ProgressUpdate(id=operation_id, progress=0.4))
        stream.finish()
        assert (await next_item(stream)).revision == 3
        assert await next_item(stream) is None
        stream.offer(ProgressUpdate(id=operation_id, progress=0.5))
        assert await next_item(stream) is None


async def test_drain_commits_pending_progress(replica):
    """A stopping replica commits pending progress, acknowledges it, and raises Draining."""
    async with reporting(replica) as (stream, operation_id):
        stream.offer(ProgressUpdate(id=operation_id, progress=0.4))
        replica.streams.drain()
        assert (await next_item(stream)).revision == 3
        with pytest.raises(Draining):
            await next_item(stream)


async def test_stream_leaves_nothing_behind(replica):
    """A stream that ends, in whatever way, leaves no task, subscription or update behind."""
    with contextlib.suppress(ZeroDivisionError):
        async with reporting(replica) as (stream, operation_id):
            stream.offer(ProgressUpdate(id=operation_id, progress=0.4))
            raise ZeroDivisionError
    assert not replica.subscriptions.unpolled
    assert not replica.pending_progress._operations
    assert not replica.streams.polls
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_end_together_with_a_notification_ends_the_polls(replica):
    """No poll goes on if the last stream ends in the same turn as a notification arrives."""
    async with reporting(replica) as (_, operation_id):
        await asyncio.sleep(0.01)  # the task of the polls waits for a request
        replica.subscriptions.publish(operation_id)
        assert replica.streams.polls
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_timeout_of_the_body_stays_a_timeout(replica):
    """A timeout inside a stream is not mistaken for a drain."""
    with pytest.raises(TimeoutError):
        async with replica.streams.open(ALICE):
            raise TimeoutError


async def test_worker_that_does_not_read_is_cut_off(replica, monkeypatch):
    """A drain waits only briefly for a worker that does not read."""
    monkeypatch.setattr(progress_stream, "MAX_DRAIN_DELAY_S", 0.01)

    async def stay() -> None:
        async with replica.streams.open(ALICE):
            replica.streams.drain()
            replica.streams.drain()
            await asyncio.Event().wait()

    with pytest.raises(Draining):
        await stay()


async def test_end_during_a_commit(replica):
    """A stream may end while a commit runs."""
    async with reporting(replica) as (stream, operation_id):
        replica.clock.advance(INTERVAL_S)
        stream.offer(ProgressUpdate(id=operation_id, progress=0.2))
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
