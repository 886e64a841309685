"""Updates on progress streams over a real store: what is committed when, and what is refused."""

import asyncio
from typing import Any

import pytest

from milepost import telemetry
from milepost.domain.errors import ProgressDecrease, StoreUnavailable, StreamFull
from milepost.domain.operation import OperationId, new_operation_id
from milepost.domain.transitions import Preconditions, TransitionRequest, TransitionResult
from milepost.storage.operations import SqlOperationStore
from milepost.tracking.progress_streams import MOST_UNREAD, SILENCE_S, ProgressStream
from milepost.tracking.reports import Refused, Update
from tests.unit.in_memory_service import ALICE, INTERVAL_S, MOST, SOON_S, reporting, told
from tests.waiting import until


async def test_updates_within_the_interval_are_one_commit(house):
    """The first update is committed at once, those of the next second as one, the newest."""
    async with reporting(house) as (stream, operation_id):
        for hundredth in range(20, 60):
            stream.offer(Update(id=operation_id, progress=hundredth / 100))
        stream.offer(Update(id=operation_id, message="going on"))
        house.clock.advance(INTERVAL_S * 0.99)
        await asyncio.sleep(0)
        assert house.stored.operation(operation_id)["revision"] == 2
        house.clock.advance(INTERVAL_S * 0.02)
        assert (await told(stream)).revision == 3
        row = house.stored.operation(operation_id)
        assert (row["progress"], row["progress_message"]) == (0.59, "going on")


async def test_later_update_is_committed_at_once(house):
    """An update that comes after a quiet interval does not wait."""
    async with reporting(house) as (stream, operation_id):
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, progress=0.4))
        assert (await told(stream)).revision == 3


async def test_decrease_is_refused_even_while_pending(house):
    """An update below the pending one is refused, as it would be unary; the larger is kept."""
    async with reporting(house) as (stream, operation_id):
        stream.offer(Update(id=operation_id, progress=0.8))
        stream.offer(Update(id=operation_id, progress=0.5))
        answer = await told(stream)
        assert isinstance(answer.error, ProgressDecrease)
        stream.offer(Update(id=operation_id, progress=0.7995))
        stream.finish()
        assert (await told(stream)).revision == 3
        assert house.stored.operation(operation_id)["progress"] == 0.8


def test_updates_of_another_attempt_are_not_mixed():
    """What was said for one attempt is not kept for the next one."""
    earlier = Update(id=new_operation_id(), attempt=1, progress=0.9, message="old")
    later = Update(id=earlier.id, attempt=2)
    assert later.after(earlier) == later


async def test_one_operation_too_many(house):
    """A stream carries so many operations and no more; the others go on."""
    async with house.streams.open(ALICE) as stream:
        ids = [await house.create() for _ in range(MOST + 1)]
        answers: list[Any] = []
        for operation_id in ids:
            stream.offer(Update(id=operation_id))
            if len(answers) < MOST // 2:
                answers.append(await told(stream))
        stream.finish()
        while (answer := await told(stream)) is not None:
            answers.append(answer)
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert [answer.id for answer in refused] == ids[MOST:]
    assert isinstance(refused[0].error, StreamFull)
    assert len(answers) == MOST + 1


async def until_committed(stream: ProgressStream, operation_id: OperationId, revision: int) -> None:
    """The stream knows that the operation has come to this revision."""
    await until(lambda: stream._reports[operation_id].revision >= revision)


async def test_unread_answers_stop_the_reading(house):
    """When the worker reads nothing, nothing more is taken from it; acknowledgements are merged."""
    async with reporting(house) as (stream, operation_id):
        for _ in range(MOST_UNREAD):
            stream.refuse("nonsense", StreamFull(most=1))
        room = asyncio.create_task(stream.room())
        await asyncio.sleep(0)
        assert not room.done()
        for revision in (3, 4, 5):
            house.clock.advance(INTERVAL_S)
            stream.offer(Update(id=operation_id))
            await until_committed(stream, operation_id, revision)
        for _ in range(MOST_UNREAD):
            assert isinstance(await told(stream), Refused)
        await asyncio.wait_for(room, SOON_S)
        stream.finish()
        assert (await told(stream)).revision == 5
        assert await told(stream) is None


def background_failures() -> float:
    """How often the look around has failed."""
    labels = {"task": "progress streams"}
    name = "milepost_background_failures_total"
    return telemetry.registry.get_sample_value(name, labels) or 0.0


async def test_store_that_is_away_refuses_the_update(house):
    """When the store is away the update is refused, and the end of the operation not tried."""
    async with reporting(house) as (stream, operation_id):
        await house.batchers.close()
        stream.offer(Update(id=operation_id, progress=0.4))
        with pytest.raises(StoreUnavailable):
            await house.tracker.complete(ALICE, operation_id, Preconditions())
        assert isinstance((await told(stream)).error, StoreUnavailable)
        house.clock.advance(SILENCE_S)
        house.streams.find_silent()
        failures = background_failures()
        await until(lambda: background_failures() > failures)
        assert house.streams._looking is not None
        assert not house.streams._looking.done()


class Broken(SqlOperationStore):
    """A store with a defect, as soon as that is switched on."""

    broken = False

    async def apply(self, change: TransitionRequest) -> TransitionResult:
        """Make the transition, or fail."""
        if self.broken:
            raise ZeroDivisionError
        return await super().apply(change)


async def test_defect_concerns_one_update(house):
    """An unforeseen error refuses one update; the stream goes on."""
    async with reporting(house) as (stream, operation_id):
        house.store.__class__ = Broken
        house.store.broken = True
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, progress=0.4))
        assert isinstance((await told(stream)).error, ZeroDivisionError)
        house.store.broken = False
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, progress=0.4))
        assert (await told(stream)).revision == 3
