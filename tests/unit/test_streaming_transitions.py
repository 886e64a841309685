"""Progress streams and moves of their operations: what is committed before, and told after."""

import pytest

from milepost.domain.errors import IllegalTransition, OperationNotFound, StoreUnavailable
from milepost.domain.interruption import InterruptionKind, StatusSnapshot
from milepost.domain.operation import AccessFilter, Principal, Role, Status
from milepost.domain.transitions import Preconditions
from milepost.tracking.progress_streams import SILENCE_S
from milepost.tracking.reports import Interruption, Refused, Report, Update
from tests.unit.in_memory_service import ALICE, INTERVAL_S, reporting, told
from tests.waiting import until

BOB = Principal(subject="bob", roles=frozenset({Role.CALLER}), credential_id="b")


@pytest.mark.parametrize("transition", ["complete", "cancel", "fail"])
async def test_terminal_move_comes_after_what_is_pending(house, transition):
    """Pending progress is committed before the end, and the stream forgets the operation."""
    async with reporting(house) as (stream, operation_id):
        stream.offer(Update(id=operation_id, progress=0.4, message="nearly"))
        effects = {"errors": ()} if transition == "fail" else {}
        outcome = await getattr(house.tracker, transition)(
            ALICE, operation_id, Preconditions(), **effects
        )
        assert outcome.operation.revision == 4
        assert outcome.operation.progress_message == "nearly"
        assert (await told(stream)).revision == 3
        if transition == "cancel":
            kind = InterruptionKind.CANCELLED
            assert await told(stream) == Interruption(id=operation_id, kind=kind, revision=4)
        stream.offer(Update(id=operation_id, progress=0.9))
        answer = await told(stream)
        assert isinstance(answer, Interruption if transition == "cancel" else Refused)
        if isinstance(answer, Refused):
            assert isinstance(answer.error, IllegalTransition)
    assert not house.pending._holders
    assert not house.subscriptions._listeners


async def test_strangers_end_flushes_nothing(house):
    """Who may not touch an operation cannot make the service commit what is pending of it."""
    async with reporting(house) as (stream, operation_id):
        stream.offer(Update(id=operation_id, progress=0.4))
        await house.pending.flush(operation_id, BOB.access_filter(worker=True, admin=True))
        assert house.stored.operation(operation_id)["revision"] == 2
        granted = AccessFilter(subject="wally", functions=("video.*",))
        await house.pending.flush(operation_id, granted)
        assert house.stored.operation(operation_id)["revision"] == 3


async def test_end_through_another_replica_is_found_by_looking(house):
    """A cancel of which no hint comes is found when the operation was silent for a while."""
    async with reporting(house) as (stream, operation_id):
        await house.another_replica().cancel(ALICE, operation_id, Preconditions())
        house.clock.advance(SILENCE_S)
        house.streams.find_silent()
        await house.streams.look()
        kind = InterruptionKind.CANCELLED
        assert await told(stream) == Interruption(id=operation_id, kind=kind, revision=3)


async def test_own_commits_cause_no_look(house):
    """A commit of the stream itself is no reason to read what has become of the operation."""
    async with reporting(house) as (stream, operation_id):
        assert not house.streams._due
        house.subscriptions.publish(operation_id)
        assert len(house.streams._due) == 1
        assert stream.ending is False


async def test_deleted_operation_is_told(house):
    """An operation that is gone is answered as the unary call would."""
    async with reporting(house) as (stream, operation_id):
        replica = house.another_replica()
        await replica.complete(ALICE, operation_id, Preconditions())
        await replica.delete(ALICE, operation_id, Preconditions())
        house.clock.advance(SILENCE_S)
        house.streams.find_silent()
        await house.streams.look()
        answer = await told(stream)
        assert isinstance(answer, Refused)
        assert isinstance(answer.error, OperationNotFound)


async def test_released_operation_is_lost(house):
    """A worker of which another attempt took over is told by the refusal of its next update."""
    async with reporting(house) as (stream, operation_id):
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, attempt=7, progress=0.4))
        kind = InterruptionKind.LEASE_LOST
        assert await told(stream) == Interruption(id=operation_id, kind=kind, revision=2)


async def test_hints_are_followed_by_a_look(house):
    """A cancel on the same replica is told at once, without an update."""
    async with reporting(house) as (stream, operation_id):
        await house.tracker.cancel(ALICE, operation_id, Preconditions())
        assert (await told(stream)).kind is InterruptionKind.CANCELLED
        assert (await house.tracker.get(ALICE, operation_id)).revision == 3


async def test_two_streams_of_one_operation(house):
    """Two streams may report on one operation; a terminal transition flushes both."""
    async with reporting(house) as (stream, operation_id), house.streams.open(ALICE) as second:
        second.offer(Update(id=operation_id, progress=0.2))
        assert (await told(second)).revision == 3
        stream.offer(Update(id=operation_id, progress=0.3))
        second.offer(Update(id=operation_id, progress=0.35))
        outcome = await house.tracker.complete(ALICE, operation_id, Preconditions())
        assert outcome.operation.revision in {5, 6}


async def test_flush_waits_for_what_runs_and_what_waits(house):
    """A terminal transition comes after the running commit and the update behind it."""
    async with reporting(house) as (stream, operation_id):
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, progress=0.2))
        stream.offer(Update(id=operation_id, progress=0.3, message="last"))
        outcome = await house.tracker.complete(ALICE, operation_id, Preconditions())
        assert outcome.operation.revision == 5
        assert outcome.operation.progress_message == "last"


async def test_update_that_waits_behind_the_first_is_held(house):
    """What waits behind the first commit is flushed too, once the operation is known."""
    operation_id = await house.create()
    async with house.streams.open(ALICE) as stream:
        stream.offer(Update(id=operation_id, progress=0.2))
        stream.offer(Update(id=operation_id, progress=0.3))
        assert (await told(stream)).revision == 2
        assert (
            await house.tracker.cancel(ALICE, operation_id, Preconditions())
        ).operation.progress == 0.3


async def test_hint_during_a_commit_is_followed(house):
    """A hint that comes while a commit runs is followed when it is done."""
    async with reporting(house) as (stream, operation_id):
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, progress=0.2))
        (report,) = stream._reports.values()
        house.subscriptions.publish(operation_id)
        report.found(None)  # read before the commit: it knows better
        assert not house.streams._due
        assert (await told(stream)).revision == 3
        await until(lambda: report in house.streams._due)


async def test_look_that_finds_nothing_new_says_nothing(house):
    """An operation that goes on, an old reading, and a report that is over are no news."""
    async with reporting(house) as (stream, operation_id):
        (report,) = stream._reports.values()
        old = StatusSnapshot(
            id=operation_id, status=Status.CANCELLED, revision=1, attempt=1, error_code=None
        )
        report.found(old)
        house.streams.look_soon(report)
        house.streams.look_soon(Report(stream, operation_id))
        await house.streams.look()
        stream.drop(Report(stream, operation_id))
        stream.finish()
        assert await told(stream) is None


async def test_refusal_is_told_even_if_its_cause_cannot_be_read(house, monkeypatch):
    """When the store goes away between a refusal and its cause, the refusal is told as it is."""

    async def away(_ids: object) -> None:
        raise StoreUnavailable

    async with reporting(house) as (stream, operation_id):
        await house.another_replica().cancel(ALICE, operation_id, Preconditions())
        monkeypatch.setattr(house.store, "status_snapshots", away)
        house.clock.advance(INTERVAL_S)
        stream.offer(Update(id=operation_id, progress=0.2))
        assert isinstance((await told(stream)).error, IllegalTransition)


async def test_update_after_the_end_is_refused_at_once(house):
    """An update that waits when the operation is found completed is refused without more ado."""
    async with reporting(house) as (stream, operation_id):
        stream.offer(Update(id=operation_id, progress=0.2))
        await house.another_replica().complete(ALICE, operation_id, Preconditions())
        house.streams.look_soon(stream._reports[operation_id])
        assert isinstance((await told(stream)).error, IllegalTransition)


async def test_completed_operation_is_forgotten(house):
    """The stream lets go of an operation that its worker has completed, and says nothing."""
    async with reporting(house) as (stream, operation_id):
        await house.tracker.complete(ALICE, operation_id, Preconditions())
        await until(lambda: operation_id not in stream._reports)
        stream.finish()
        assert await told(stream) is None
