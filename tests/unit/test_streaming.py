"""Progress streams over a real store, with a clock of the test's own."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from milepost import telemetry
from milepost.domain.errors import (
    Draining,
    IllegalMove,
    OperationNotFound,
    ProgressDecrease,
    StoreUnavailable,
    StreamFull,
)
from milepost.domain.interruption import InterruptionKind, Standing
from milepost.domain.lifecycle import Change, Guards
from milepost.domain.limits import Limits
from milepost.domain.operation import (
    OperationId,
    Principal,
    Proposal,
    Role,
    Scope,
    Status,
    new_operation_id,
)
from milepost.domain.ports import Outcome
from milepost.domain.rates import Allowance, Allowances
from milepost.storage.engine import open_engine
from milepost.storage.store import SqlOperationStore
from milepost.tracking import streaming
from milepost.tracking.changes import Changes
from milepost.tracking.claiming import PendingWork
from milepost.tracking.paging import PageTokens
from milepost.tracking.pending import PendingProgress
from milepost.tracking.reports import Acknowledgement, Interruption, Refused, Report, Update
from milepost.tracking.streaming import MOST_UNREAD, SILENCE_S, ProgressStream, Streams
from milepost.tracking.tracker import Tracker
from tests.contract.stored import Stored
from tests.waiting import until

ALICE = Principal(subject="alice", roles=frozenset({Role.CALLER}), credential_id="a")
BOB = Principal(subject="bob", roles=frozenset({Role.CALLER}), credential_id="b")
PROPOSAL = Proposal(function="video.transcode")
INTERVAL_S = 1.0
MOST = 300
SOON_S = 5.0


class Timer(asyncio.TimerHandle):
    """Something to be called when the test's clock comes to it."""


class Clock:
    """Time stands still until the test lets it go on."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._timers: list[Timer] = []

    def time(self) -> float:
        """Now."""
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call back later."""
        timer = Timer(self._now + delay, callback, (), asyncio.get_running_loop())
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """So much later: what is due by then is called."""
        self._now += seconds
        due = [timer for timer in self._timers if timer.when() <= self._now]
        self._timers = [timer for timer in self._timers if timer not in due]
        for timer in due:
            timer._run()


class House:
    """A replica: its use cases and its progress streams, over a fresh database."""

    def __init__(self, url: str) -> None:
        self.store = SqlOperationStore(open_engine(url))
        self.stored = Stored(open_engine(url))
        self.clock = Clock()
        self.pending = PendingProgress()
        self.changes = Changes()
        self.tracker = self.another_replica(self.changes, self.pending)
        self.streams = Streams(
            self.tracker,
            self.store,
            changes=self.changes,
            pending=self.pending,
            limits=Limits(stream_interval=timedelta(seconds=INTERVAL_S), stream_operations=MOST),
            clock=self.clock,
        )

    def another_replica(
        self, changes: Changes | None = None, pending: PendingProgress | None = None
    ) -> Tracker:
        """The use cases on the same store; the streams here learn nothing of them by themselves."""
        return Tracker(
            self.store,
            limits=Limits(),
            page_tokens=PageTokens(secrets.token_bytes(32)),
            changes=changes or Changes(),
            work=PendingWork(self.store),
            pending=pending,
            allowances=Allowances(default=Allowance(active=1_000)),
        )

    async def create(self) -> OperationId:
        """A new operation of Alice's."""
        return (await self.tracker.create(ALICE, PROPOSAL)).operation.id


@pytest.fixture
async def house(sqlite_url: str) -> AsyncIterator[House]:
    """A replica."""
    house = House(sqlite_url)
    yield house
    await house.store.close()


async def told(stream: ProgressStream) -> Any:
    """What the worker is told next."""
    return await asyncio.wait_for(stream.next(), SOON_S)


@asynccontextmanager
async def reporting(house: House) -> AsyncIterator[tuple[ProgressStream, OperationId]]:
    """A stream with one operation, whose first update was acknowledged."""
    operation_id = await house.create()
    async with house.streams.open(ALICE) as stream:
        stream.offer(Update(id=operation_id, progress=0.1, message="begun"))
        first = await told(stream)
        assert isinstance(first, Acknowledgement)
        assert (first.id, first.revision, first.attempt) == (operation_id, 2, 1)
        yield stream, operation_id


async def test_updates_within_the_interval_are_one_commit(house):
    """The first update is committed at once, those of the next second as one, the newest (B97)."""
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


@pytest.mark.parametrize("move", ["complete", "cancel", "fail"])
async def test_terminal_move_comes_after_what_is_pending(house, move):
    """Pending progress is committed before the end, and the stream forgets the operation (B97)."""
    async with reporting(house) as (stream, operation_id):
        stream.offer(Update(id=operation_id, progress=0.4, message="nearly"))
        effects = {"errors": ()} if move == "fail" else {}
        outcome = await getattr(house.tracker, move)(ALICE, operation_id, Guards(), **effects)
        assert outcome.operation.revision == 4
        assert outcome.operation.progress_message == "nearly"
        assert (await told(stream)).revision == 3
        if move == "cancel":
            kind = InterruptionKind.CANCELLED
            assert await told(stream) == Interruption(id=operation_id, kind=kind, revision=4)
        stream.offer(Update(id=operation_id, progress=0.9))
        answer = await told(stream)
        assert isinstance(answer, Interruption if move == "cancel" else Refused)
        if isinstance(answer, Refused):
            assert isinstance(answer.error, IllegalMove)
    assert not house.pending._holders
    assert not house.changes._listeners


async def test_strangers_end_flushes_nothing(house):
    """Who may not touch an operation cannot make the service commit what is pending of it."""
    async with reporting(house) as (stream, operation_id):
        stream.offer(Update(id=operation_id, progress=0.4))
        await house.pending.flush(operation_id, BOB.scope(worker=True, admin=True))
        assert house.stored.operation(operation_id)["revision"] == 2
        granted = Scope(subject="wally", functions=("video.*",))
        await house.pending.flush(operation_id, granted)
        assert house.stored.operation(operation_id)["revision"] == 3


async def test_end_through_another_replica_is_found_by_looking(house):
    """A cancel of which no hint comes is found when the operation was silent for a while (B132)."""
    async with reporting(house) as (stream, operation_id):
        await house.another_replica().cancel(ALICE, operation_id, Guards())
        house.clock.advance(SILENCE_S)
        house.streams.find_silent()
        await house.streams.look()
        kind = InterruptionKind.CANCELLED
        assert await told(stream) == Interruption(id=operation_id, kind=kind, revision=3)


async def test_own_commits_cause_no_look(house):
    """A commit of the stream itself is no reason to read what has become of the operation."""
    async with reporting(house) as (stream, operation_id):
        assert not house.streams._due
        house.changes.publish(operation_id)
        assert len(house.streams._due) == 1
        assert stream.ending is False


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
        await house.store.close()
        stream.offer(Update(id=operation_id, progress=0.4))
        with pytest.raises(StoreUnavailable):
            await house.tracker.complete(ALICE, operation_id, Guards())
        assert isinstance((await told(stream)).error, StoreUnavailable)
        house.clock.advance(SILENCE_S)
        house.streams.find_silent()
        failures = background_failures()
        await until(lambda: background_failures() > failures)
        assert house.streams._looking is not None
        assert not house.streams._looking.done()


async def test_deleted_operation_is_told(house):
    """An operation that is gone is answered as the unary call would."""
    async with reporting(house) as (stream, operation_id):
        replica = house.another_replica()
        await replica.complete(ALICE, operation_id, Guards())
        await replica.delete(ALICE, operation_id, Guards())
        house.clock.advance(SILENCE_S)
        house.streams.find_silent()
        await house.streams.look()
        answer = await told(stream)
        assert isinstance(answer, Refused)
        assert isinstance(answer.error, OperationNotFound)


async def test_nothing_is_left_of_a_stream(house):
    """When the stream ends, in whatever way, no task, listener or update is left of it."""
    with contextlib.suppress(ZeroDivisionError):
        async with reporting(house) as (stream, operation_id):
            stream.offer(Update(id=operation_id, progress=0.4))
            raise ZeroDivisionError
    assert not house.changes._listeners
    assert not house.pending._holders
    assert not house.streams._due
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


class Broken(SqlOperationStore):
    """A store with a defect, as soon as that is switched on."""

    broken = False

    async def apply(self, change: Change) -> Outcome:
        """Make the move, or fail."""
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


async def test_released_operation_is_lost(house):
    """A worker of which another attempt took over is told by the refusal of its next update."""
    async with reporting(house) as (stream, operation_id):
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, attempt=7, progress=0.4))
        kind = InterruptionKind.LEASE_LOST
        assert await told(stream) == Interruption(id=operation_id, kind=kind, revision=2)


async def test_hints_are_followed_by_a_look(house):
    """A cancel on the same replica is told at once, without an update (B132)."""
    async with reporting(house) as (stream, operation_id):
        await house.tracker.cancel(ALICE, operation_id, Guards())
        assert (await told(stream)).kind is InterruptionKind.CANCELLED
        assert (await house.tracker.get(ALICE, operation_id)).revision == 3


async def test_two_streams_of_one_operation(house):
    """Two streams may report on one operation; a terminal move flushes both."""
    async with reporting(house) as (stream, operation_id), house.streams.open(ALICE) as second:
        second.offer(Update(id=operation_id, progress=0.2))
        assert (await told(second)).revision == 3
        stream.offer(Update(id=operation_id, progress=0.3))
        second.offer(Update(id=operation_id, progress=0.35))
        outcome = await house.tracker.complete(ALICE, operation_id, Guards())
        assert outcome.operation.revision in {5, 6}


async def test_timeout_of_the_body_stays_a_timeout(house):
    """A timeout inside of a stream is not taken for a drain."""
    with pytest.raises(TimeoutError):
        async with house.streams.open(ALICE):
            raise TimeoutError


async def test_who_does_not_read_is_left_behind(house, monkeypatch):
    """A drain waits for a worker that does not read, but not for ever."""
    monkeypatch.setattr(streaming, "FAREWELL_S", 0.01)

    async def stay() -> None:
        async with house.streams.open(ALICE):
            house.streams.drain()
            house.streams.drain()
            await asyncio.Event().wait()

    with pytest.raises(Draining):
        await stay()


async def test_flush_waits_for_what_runs_and_what_waits(house):
    """A terminal move comes after the commit that runs and the update that waits behind it."""
    async with reporting(house) as (stream, operation_id):
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, progress=0.2))
        stream.offer(Update(id=operation_id, progress=0.3, message="last"))
        outcome = await house.tracker.complete(ALICE, operation_id, Guards())
        assert outcome.operation.revision == 5
        assert outcome.operation.progress_message == "last"


async def test_update_that_waits_behind_the_first_is_held(house):
    """What waits behind the first commit is flushed too, once the operation is known."""
    operation_id = await house.create()
    async with house.streams.open(ALICE) as stream:
        stream.offer(Update(id=operation_id, progress=0.2))
        stream.offer(Update(id=operation_id, progress=0.3))
        assert (await told(stream)).revision == 2
        assert (await house.tracker.cancel(ALICE, operation_id, Guards())).operation.progress == 0.3


async def test_hint_during_a_commit_is_followed(house):
    """A hint that comes while a commit runs is followed when it is done."""
    async with reporting(house) as (stream, operation_id):
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, progress=0.2))
        (report,) = stream._reports.values()
        house.changes.publish(operation_id)
        report.found(None)  # read before the commit: it knows better
        assert not house.streams._due
        assert (await told(stream)).revision == 3
        await until(lambda: report in house.streams._due)


async def test_look_that_finds_nothing_new_says_nothing(house):
    """An operation that goes on, an old reading, and a report that is over are no news."""
    async with reporting(house) as (stream, operation_id):
        (report,) = stream._reports.values()
        old = Standing(
            id=operation_id, status=Status.CANCELLED, revision=1, attempt=1, error_code=None
        )
        report.found(old)
        house.streams.look_soon(report)
        house.streams.look_soon(Report(stream, operation_id))
        await house.streams.look()
        stream.drop(Report(stream, operation_id))
        stream.finish()
        assert await told(stream) is None


async def test_end_during_a_commit(house):
    """A stream may end while a commit runs."""
    async with reporting(house) as (stream, operation_id):
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, progress=0.2))
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_refusal_is_told_even_if_its_cause_cannot_be_read(house, monkeypatch):
    """When the store goes away between a refusal and its cause, the refusal is told as it is."""

    async def away(_ids: object) -> None:
        raise StoreUnavailable

    async with reporting(house) as (stream, operation_id):
        await house.another_replica().cancel(ALICE, operation_id, Guards())
        monkeypatch.setattr(house.store, "standings", away)
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, progress=0.2))
        assert isinstance((await told(stream)).error, IllegalMove)


async def test_update_after_the_end_is_refused_at_once(house):
    """An update that waits when the operation is found completed is refused without more ado."""
    async with reporting(house) as (stream, operation_id):
        stream.offer(Update(id=operation_id, progress=0.2))
        await house.another_replica().complete(ALICE, operation_id, Guards())
        house.streams.look_soon(stream._reports[operation_id])
        assert isinstance((await told(stream)).error, IllegalMove)


async def test_completed_operation_is_forgotten(house):
    """The stream lets go of an operation that its worker has completed, and says nothing."""
    async with reporting(house) as (stream, operation_id):
        await house.tracker.complete(ALICE, operation_id, Guards())
        await until(lambda: operation_id not in stream._reports)
        stream.finish()
        assert await told(stream) is None
