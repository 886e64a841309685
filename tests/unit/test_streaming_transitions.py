"""Progress streams and transitions: the flush before them, and the items after them."""

import pytest

from milepost.domain.errors import IllegalTransition, OperationNotFound, StoreUnavailable
from milepost.domain.interruption import InterruptionKind
from milepost.domain.operation import AccessFilter, Principal, Role
from milepost.domain.transitions import Preconditions
from milepost.tracking.progress_messages import Interruption, ProgressUpdate, UpdateError
from milepost.tracking.progress_streams import MAX_SILENCE_S
from tests.unit.in_memory_service import ALICE, INTERVAL_S, next_item, reporting
from tests.waiting import until

BOB = Principal(subject="bob", roles=frozenset({Role.CALLER}), credential_id="b")


@pytest.mark.parametrize("transition", ["complete", "cancel", "fail"])
async def test_terminal_transition_follows_pending_progress(replica, transition):
    """Pending progress is committed before a terminal transition; the operation is dropped."""
    async with reporting(replica) as (stream, operation_id):
        stream.offer(ProgressUpdate(id=operation_id, progress=0.4, message="nearly"))
        effects = {"errors": ()} if transition == "fail" else {}
        outcome = await getattr(replica.tracker, transition)(
            ALICE, operation_id, Preconditions(), **effects
        )
        assert outcome.operation.revision == 4
        assert outcome.operation.progress_message == "nearly"
        assert (await next_item(stream)).revision == 3
        if transition == "cancel":
            kind = InterruptionKind.CANCELLED
            assert await next_item(stream) == Interruption(id=operation_id, kind=kind, revision=4)
        stream.offer(ProgressUpdate(id=operation_id, progress=0.9))
        answer = await next_item(stream)
        assert isinstance(answer, Interruption if transition == "cancel" else UpdateError)
        if isinstance(answer, UpdateError):
            assert isinstance(answer.error, IllegalTransition)
    assert not replica.pending_progress._operations
    assert not replica.subscriptions.unpolled


async def test_release_follows_pending_progress(replica):
    """Pending progress is committed before a release, so that it cannot start the next attempt."""
    async with reporting(replica) as (stream, operation_id):
        stream.offer(ProgressUpdate(id=operation_id, progress=0.4))
        await replica.tracker.release(ALICE, operation_id, Preconditions())
        assert (await next_item(stream)).revision == 3
        kind = InterruptionKind.LEASE_LOST
        assert await next_item(stream) == Interruption(id=operation_id, kind=kind, revision=4)
    row = replica.stored.operation(operation_id)
    assert (row["status"], row["attempt"], row["revision"]) == ("PENDING", 1, 4)


async def test_flush_is_limited_by_the_access_filter(replica):
    """A caller that may not touch an operation does not cause the commit of its progress."""
    async with reporting(replica) as (stream, operation_id):
        stream.offer(ProgressUpdate(id=operation_id, progress=0.4))
        await replica.pending_progress.flush(
            operation_id, BOB.access_filter(worker=True, admin=True)
        )
        assert replica.stored.operation(operation_id)["revision"] == 2
        granted = AccessFilter(subject="wally", functions=("video.*",))
        await replica.pending_progress.flush(operation_id, granted)
        assert replica.stored.operation(operation_id)["revision"] == 3


async def test_end_on_another_replica_is_found_by_a_poll(replica):
    """A cancel without a notification is found by the poll of a silent operation."""
    async with reporting(replica) as (stream, operation_id):
        await replica.another_tracker().cancel(ALICE, operation_id, Preconditions())
        replica.clock.advance(MAX_SILENCE_S)
        replica.streams.request_silent()
        await replica.streams.polls.run()
        kind = InterruptionKind.CANCELLED
        assert await next_item(stream) == Interruption(id=operation_id, kind=kind, revision=3)


async def test_own_commits_cause_no_poll(replica):
    """A commit of the stream itself causes no poll, another transition does."""
    async with reporting(replica) as (_stream, operation_id):
        assert not replica.streams.polls
        replica.subscriptions.publish(operation_id)
        assert len(replica.streams.polls) == 1


async def test_deleted_operation_is_not_found(replica):
    """The worker of a deleted operation gets the error of the unary call."""
    async with reporting(replica) as (stream, operation_id):
        tracker = replica.another_tracker()
        await tracker.complete(ALICE, operation_id, Preconditions())
        await tracker.delete(ALICE, operation_id, Preconditions())
        replica.clock.advance(MAX_SILENCE_S)
        replica.streams.request_silent()
        await replica.streams.polls.run()
        answer = await next_item(stream)
        assert isinstance(answer, UpdateError)
        assert isinstance(answer.error, OperationNotFound)


async def test_stale_attempt_is_interrupted(replica):
    """An update of another attempt is answered by an interruption."""
    async with reporting(replica) as (stream, operation_id):
        replica.clock.advance(INTERVAL_S)
        stream.offer(ProgressUpdate(id=operation_id, attempt=7, progress=0.4))
        kind = InterruptionKind.LEASE_LOST
        assert await next_item(stream) == Interruption(id=operation_id, kind=kind, revision=2)


async def test_cancel_on_the_same_replica_is_pushed(replica):
    """A cancel on the same replica interrupts the worker at once, without an update."""
    async with reporting(replica) as (stream, operation_id):
        await replica.tracker.cancel(ALICE, operation_id, Preconditions())
        assert (await next_item(stream)).kind is InterruptionKind.CANCELLED
        assert (await replica.tracker.get(ALICE, operation_id)).revision == 3


async def test_two_streams_of_one_operation(replica):
    """Two streams may report on one operation; a terminal transition flushes both."""
    async with reporting(replica) as (stream, operation_id), replica.streams.open(ALICE) as second:
        second.offer(ProgressUpdate(id=operation_id, progress=0.2))
        assert (await next_item(second)).revision == 3
        stream.offer(ProgressUpdate(id=operation_id, progress=0.3))
        second.offer(ProgressUpdate(id=operation_id, progress=0.35))
        outcome = await replica.tracker.complete(ALICE, operation_id, Preconditions())
        assert outcome.operation.revision in {5, 6}


async def test_flush_waits_for_the_running_commit_and_the_pending_update(replica):
    """A terminal transition comes after the running commit and the update behind it."""
    async with reporting(replica) as (stream, operation_id):
        replica.clock.advance(INTERVAL_S)
        stream.offer(ProgressUpdate(id=operation_id, progress=0.2))
        stream.offer(ProgressUpdate(id=operation_id, progress=0.3, message="last"))
        outcome = await replica.tracker.complete(ALICE, operation_id, Preconditions())
        assert outcome.operation.revision == 5
        assert outcome.operation.progress_message == "last"


async def test_update_behind_the_first_commit_is_flushed(replica):
    """An update that waits for the first commit is flushed too, once the operation is known."""
    operation_id = await replica.create()
    async with replica.streams.open(ALICE) as stream:
        stream.offer(ProgressUpdate(id=operation_id, progress=0.2))
        stream.offer(ProgressUpdate(id=operation_id, progress=0.3))
        assert (await next_item(stream)).revision == 2
        assert (
            await replica.tracker.cancel(ALICE, operation_id, Preconditions())
        ).operation.progress == 0.3


async def test_refusal_is_sent_even_if_its_cause_cannot_be_read(replica, monkeypatch):
    """When the store fails between a refusal and the read of the status, the error is sent."""

    async def away(_ids: object) -> None:
        raise StoreUnavailable

    async with reporting(replica) as (stream, operation_id):
        await replica.another_tracker().cancel(ALICE, operation_id, Preconditions())
        monkeypatch.setattr(replica.store, "status_snapshots", away)
        replica.clock.advance(INTERVAL_S)
        stream.offer(ProgressUpdate(id=operation_id, progress=0.2))
        assert isinstance((await next_item(stream)).error, IllegalTransition)


async def test_update_after_the_end_is_refused_at_once(replica):
    """An update that is pending when the operation is found completed is refused at once."""
    async with reporting(replica) as (stream, operation_id):
        stream.offer(ProgressUpdate(id=operation_id, progress=0.2))
        await replica.another_tracker().complete(ALICE, operation_id, Preconditions())
        replica.streams.polls.request(stream._operations[operation_id])
        assert isinstance((await next_item(stream)).error, IllegalTransition)


async def test_completed_operation_is_dropped(replica):
    """The stream drops an operation that its worker has completed, without an item."""
    async with reporting(replica) as (stream, operation_id):
        await replica.tracker.complete(ALICE, operation_id, Preconditions())
        await until(lambda: operation_id not in stream._operations)
        stream.finish()
        assert await next_item(stream) is None
