"""Updates on progress streams over a real store: commits and refusals."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from milepost import telemetry
from milepost.domain.errors import ProgressDecrease, StaleAttempt, StoreUnavailable, StreamFull
from milepost.domain.interruption import StatusSnapshot
from milepost.domain.operation import OperationId, new_operation_id
from milepost.domain.ports import ignore
from milepost.domain.transitions import Preconditions, TransitionRequest, TransitionResult
from milepost.storage.operations import SqlOperationStore
from milepost.tracking.progress_messages import Acknowledgement, ProgressUpdate, UpdateError
from milepost.tracking.progress_outbox import MAX_UNREAD_ITEMS
from milepost.tracking.progress_stream import ProgressStream
from milepost.tracking.progress_streams import MAX_SILENCE_S
from tests.unit.in_memory_service import (
    ALICE,
    INTERVAL_S,
    MAX_OPERATIONS,
    SOON_S,
    next_item,
    reporting,
)
from tests.waiting import until


async def test_updates_within_the_interval_are_one_commit(replica):
    """The first update is committed at once, and those of the next second as one."""
    async with reporting(replica) as (stream, operation_id):
        for hundredth in range(20, 60):
            stream.offer(ProgressUpdate(id=operation_id, progress=hundredth / 100))
        stream.offer(ProgressUpdate(id=operation_id, message="going on"))
        replica.clock.advance(INTERVAL_S * 0.99)
        await asyncio.sleep(0)
        assert replica.stored.operation(operation_id)["revision"] == 2
        replica.clock.advance(INTERVAL_S * 0.02)
        assert (await next_item(stream)).revision == 3
        row = replica.stored.operation(operation_id)
        assert (row["progress"], row["progress_message"]) == (0.59, "going on")


async def test_later_update_is_committed_at_once(replica):
    """An update that comes after a quiet interval does not wait."""
    async with reporting(replica) as (stream, operation_id):
        replica.clock.advance(INTERVAL_S)
        stream.offer(ProgressUpdate(id=operation_id, progress=0.4))
        assert (await next_item(stream)).revision == 3


async def test_decrease_is_refused_even_while_pending(replica):
    """An update below the pending one is refused, like a unary one; the pending one is kept."""
    async with reporting(replica) as (stream, operation_id):
        stream.offer(ProgressUpdate(id=operation_id, progress=0.8))
        stream.offer(ProgressUpdate(id=operation_id, progress=0.5))
        answer = await next_item(stream)
        assert isinstance(answer.error, ProgressDecrease)
        stream.offer(ProgressUpdate(id=operation_id, progress=0.7995))
        stream.finish()
        assert (await next_item(stream)).revision == 3
        assert replica.stored.operation(operation_id)["progress"] == 0.8


def test_updates_of_another_attempt_are_not_mixed():
    """An update of the next attempt replaces a pending one as a whole."""
    earlier = ProgressUpdate(id=new_operation_id(), attempt=1, progress=0.9, message="old")
    later = ProgressUpdate(id=earlier.id, attempt=2)
    assert earlier.coalesced_with(later) == later


async def test_one_operation_too_many(replica):
    """A stream refuses operations above its limit; the others continue."""
    async with replica.streams.open(ALICE) as stream:
        ids = [await replica.create() for _ in range(MAX_OPERATIONS + 1)]
        answers: list[Any] = []
        for operation_id in ids:
            stream.offer(ProgressUpdate(id=operation_id))
            if len(answers) < MAX_OPERATIONS // 2:
                answers.append(await next_item(stream))
        stream.finish()
        while (answer := await next_item(stream)) is not None:
            answers.append(answer)
    refused = [answer for answer in answers if isinstance(answer, UpdateError)]
    assert [answer.id for answer in refused] == ids[MAX_OPERATIONS:]
    assert isinstance(refused[0].error, StreamFull)
    assert len(answers) == MAX_OPERATIONS + 1


async def until_committed(stream: ProgressStream, operation_id: OperationId, revision: int) -> None:
    """Wait until the stream has committed this revision."""
    await until(lambda: stream._operations[operation_id].buffer.revision >= revision)


async def test_unread_answers_stop_reading(replica):
    """When the worker does not read, the stream stops reading too, and merges acknowledgements."""
    async with reporting(replica) as (stream, operation_id):
        for _ in range(MAX_UNREAD_ITEMS):
            stream.refuse("nonsense", StreamFull(max_operations=1))
        room = asyncio.create_task(stream.wait_for_room())
        await asyncio.sleep(0)
        assert not room.done()
        for revision in (3, 4, 5):
            replica.clock.advance(INTERVAL_S)
            stream.offer(ProgressUpdate(id=operation_id))
            await until_committed(stream, operation_id, revision)
        for _ in range(MAX_UNREAD_ITEMS):
            assert isinstance(await next_item(stream), UpdateError)
        await asyncio.wait_for(room, SOON_S)
        stream.finish()
        assert (await next_item(stream)).revision == 5
        assert await next_item(stream) is None


async def test_acknowledgements_of_one_turn_are_taken_together(replica):
    """The acknowledgements before the next item of another kind are taken at once, in order."""
    async with replica.streams.open(ALICE) as stream:
        ids = [await replica.create() for _ in range(5)]
        for operation_id in ids[:4]:
            stream.offer(ProgressUpdate(id=operation_id))
        await until(lambda: len(stream._outbox) == 4)
        stream.refuse("nonsense", StreamFull(max_operations=1))
        stream.offer(ProgressUpdate(id=ids[4]))
        await until(lambda: len(stream._outbox) == 6)
        assert (await next_item(stream)).id == ids[0]
        assert [item.id for item in stream.next_acknowledgements(2)] == ids[1:3]
        assert [item.id for item in stream.next_acknowledgements(9)] == ids[3:4]
        assert list(stream.next_acknowledgements(9)) == []
        assert isinstance(await next_item(stream), UpdateError)
        assert [item.id for item in stream.next_acknowledgements(9)] == ids[4:]


async def test_acknowledgements_that_are_taken_together_make_room(replica):
    """The stream reads again when its worker has read a batch."""
    async with reporting(replica) as (stream, _):
        for _ in range(MAX_UNREAD_ITEMS):
            acknowledgement = Acknowledgement(
                id=new_operation_id(), revision=1, attempt=1, lease_expire_time=None
            )
            stream._outbox.put(acknowledgement)
        assert stream.is_full
        stream.next_acknowledgements(MAX_UNREAD_ITEMS)
        await asyncio.wait_for(stream.wait_for_room(), SOON_S)


def background_failures() -> float:
    """Return how often a poll has failed."""
    labels = {"task": "progress streams"}
    name = "milepost_background_failures_total"
    return telemetry.registry.get_sample_value(name, labels) or 0.0


async def test_unavailable_store_refuses_the_update(replica):
    """While the store is unavailable the update and the end of the operation are refused."""
    async with reporting(replica) as (stream, operation_id):
        await replica.batchers.close()
        stream.offer(ProgressUpdate(id=operation_id, progress=0.4))
        with pytest.raises(StoreUnavailable):
            await replica.tracker.complete(ALICE, operation_id, Preconditions())
        assert isinstance((await next_item(stream)).error, StoreUnavailable)
        replica.clock.advance(MAX_SILENCE_S)
        replica.streams.request_silent()
        failures = background_failures()
        await until(lambda: background_failures() > failures)
        assert replica.streams._polling is not None
        assert not replica.streams._polling.done()


class Broken(SqlOperationStore):
    """A store with a defect that the test switches on."""

    broken = False
    unreadable = False

    async def apply(
        self, request: TransitionRequest, on_abandoned: Callable[[TransitionResult], None] = ignore
    ) -> TransitionResult:
        """Make the transition, or fail."""
        if self.broken:
            raise ZeroDivisionError
        return await super().apply(request, on_abandoned)

    async def status_snapshots(self, ids: Sequence[OperationId]) -> Sequence[StatusSnapshot]:
        """Read the statuses, or fail."""
        if self.unreadable:
            raise ZeroDivisionError
        return await super().status_snapshots(ids)


async def test_defect_concerns_one_update(replica):
    """An unexpected error refuses one update; the stream continues."""
    async with reporting(replica) as (stream, operation_id):
        replica.store.__class__ = Broken
        replica.store.broken = True
        replica.clock.advance(INTERVAL_S)
        stream.offer(ProgressUpdate(id=operation_id, progress=0.4))
        assert isinstance((await next_item(stream)).error, ZeroDivisionError)
        replica.store.broken = False
        replica.clock.advance(INTERVAL_S)
        stream.offer(ProgressUpdate(id=operation_id, progress=0.4))
        assert (await next_item(stream)).revision == 3


async def test_defect_of_the_status_read_leaves_the_refusal(replica):
    """If the status behind a refusal cannot be read, the worker gets the refusal itself."""
    async with reporting(replica) as (stream, operation_id):
        replica.store.__class__ = Broken
        replica.store.unreadable = True
        failures = background_failures()
        replica.clock.advance(INTERVAL_S)
        stream.offer(ProgressUpdate(id=operation_id, progress=0.4, attempt=7))
        assert isinstance((await next_item(stream)).error, StaleAttempt)
        assert background_failures() > failures
        stream.finish()
        assert await next_item(stream) is None
