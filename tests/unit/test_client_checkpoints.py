"""Checkpoints and requested cancels on the progress stream of the client."""

import asyncio
from functools import partial
from typing import Any

import grpc
import pytest

from milepost_client import InvalidRequest, OperationError, StaleAttempt, Work, progress_stream
from milepost_client.convert import from_any, to_any
from milepost_client.gen.milepost.v1 import worker_service_pb2 as pb
from milepost_client.held_operation import HeldOperation
from milepost_client.streamed_work import StreamedWork
from tests.machine import slowdown
from tests.unit.client_script import ID, Never, Refusal, Streamed, operation, started, talking
from tests.unit.stream_service import Outbox, StreamService, claimed, streaming
from tests.waiting import until


class Sending(Outbox):
    """A stream that takes every report at once, and is acknowledged when a test says so."""

    def __init__(self) -> None:
        self.sent: list[pb.ProgressUpdate] = []

    def enqueue(self, held: HeldOperation) -> None:
        """Take the newest report."""
        copy = pb.ProgressUpdate()
        copy.CopyFrom(held.take(float(len(self.sent))))
        self.sent.append(copy)

    @property
    def checkpoints(self) -> list[Any]:
        """The checkpoints that were sent; None for a report without one."""
        return [from_any(r.checkpoint) if r.HasField("checkpoint") else None for r in self.sent]


def held(outbox: Outbox) -> HeldOperation:
    """Hold an operation on the stream."""
    return HeldOperation(outbox, claimed("one", lease_s=60), lambda _: None, lambda: None)


async def test_checkpoint_is_sent_until_it_is_stored():
    """A checkpoint travels with every report until it is acknowledged, and never again."""
    outbox = Sending()
    work = held(outbox)
    await work.report(0.1, None, to_any("a"))
    await work.report(0.2)
    work.acknowledge()
    await work.report(0.3)
    await work.report(0.4, None, to_any("b"))
    for _ in range(4):
        work.acknowledge()
    await work.report(0.5)
    assert outbox.checkpoints == ["a", "a", None, "b", None]


async def test_acknowledgement_of_an_older_checkpoint_keeps_the_newer_one():
    """A checkpoint that replaced another one is sent again after the answer to that."""
    outbox = Sending()
    work = held(outbox)
    await work.report(None, None, to_any("a"))
    await work.report(None, None, to_any("b"))
    work.acknowledge()
    await work.report(0.1)
    assert outbox.checkpoints == ["a", "b", "b"]
    assert work.unstored is not None


async def test_flush_ends_when_the_last_report_is_stored():
    """`flush` waits for the answer to the last report, and sends it again after one to another."""
    outbox = Sending()
    work = held(outbox)
    await work.flush()
    await work.report(None, None, to_any("a"))
    await work.report(None, None, to_any("b"))
    flushing = asyncio.create_task(work.flush())
    await asyncio.sleep(0.01)
    assert outbox.checkpoints == ["a", "b"]
    work.acknowledge()  # of "a", or of both: the service coalesces
    await asyncio.sleep(0.01)
    assert not flushing.done()
    assert outbox.checkpoints == ["a", "b", "b"]
    work.acknowledge()
    await asyncio.wait_for(flushing, 1)
    assert work.unstored is None


async def test_flush_raises_the_refusal():
    """A refused report ends the wait for its storage, with the reason."""
    work = held(Sending())
    await work.report(0.5)
    flushing = asyncio.create_task(work.flush())
    await asyncio.sleep(0)
    work.refuse(InvalidRequest("x"))
    with pytest.raises(InvalidRequest):
        await asyncio.wait_for(flushing, 1)


@pytest.mark.parametrize("is_taken_away", [True, False])
async def test_flush_ends_with_the_work(is_taken_away):
    """A thread that waits in `flush` does not hang when its work is over."""
    work = held(Sending())
    await work.report(0.5)
    flushing = asyncio.create_task(work.flush())
    await asyncio.sleep(0)
    if is_taken_away:
        work.refuse(StaleAttempt("x"))
    else:
        work.close()
    with pytest.raises((StaleAttempt, RuntimeError)):
        await asyncio.wait_for(flushing, 1)


async def test_end_waits_until_the_checkpoint_is_on_the_stream():
    """An end cannot overtake a checkpoint, and does not wait long for a stream that is away."""
    work = held(Outbox())
    await work.report(None, None, to_any("a"))
    sending = asyncio.create_task(work.send())
    await asyncio.sleep(0.01)
    assert not sending.done()
    work.take(1.0)
    await asyncio.wait_for(sending, 0.1)
    await work.report(None, None, to_any("b"))
    await asyncio.wait_for(work.send(), 1)


FAILED = pb.FailOperationResponse(operation=operation("PENDING", attempt=1))
RELEASED = pb.ReleaseOperationResponse(operation=operation("PENDING", attempt=1))
ACKNOWLEDGED = pb.AcknowledgeCancellationResponse(operation=operation("CANCELLED", attempt=1))


@pytest.fixture
def _impatient(monkeypatch):
    """A client does not wait for the acknowledgements of a silent stream when it is closed."""
    monkeypatch.setattr(progress_stream, "CLOSE_TIMEOUT_S", 0.1)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("end", ["fail", "release"])
async def test_last_checkpoint_is_stored_before_the_attempt_ends(end):
    """A checkpoint that is not acknowledged is stored by a call, before a failure or a release."""
    progressed = pb.UpdateProgressResponse(operation=operation("PROCESSING", attempt=1))
    ended = FAILED if end == "fail" else RELEASED
    async with talking(Streamed((), Never()), progressed, ended) as (milepost, service):
        work = StreamedWork(milepost, claimed(ID, lease_s=60))
        await work.checkpoint("last")
        await until(lambda: len(service.asked) == 1)
        if end == "fail":
            await work.fail(OperationError("E", "e"), retryable=True)
        else:
            await work.leave()
        work.detach()
    assert service.methods[:2] == ["StreamProgress", "UpdateProgress"]
    assert from_any(service.requests[1].checkpoint) == "last"
    assert service.methods[2] == {"fail": "FailOperation", "release": "ReleaseOperation"}[end]


@pytest.mark.usefixtures("_impatient")
async def test_release_is_not_lost_with_its_checkpoint():
    """A checkpoint that is refused before a release does not keep the operation."""
    refused = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    async with talking(Streamed((), Never()), refused, RELEASED) as (milepost, service):
        work = StreamedWork(milepost, claimed(ID, lease_s=60))
        await work.checkpoint("last")
        await until(lambda: len(service.asked) == 1)
        await work.leave()
    assert service.methods[1:] == ["UpdateProgress", "ReleaseOperation"]


@pytest.mark.usefixtures("_impatient")
async def test_cancelled_operation_is_acknowledged_and_not_released():
    """An operation whose cancel is requested needs no checkpoint and no other worker."""
    async with talking(Streamed((), Never()), ACKNOWLEDGED) as (milepost, service):
        work = StreamedWork(milepost, claimed(ID, lease_s=60))
        await work.checkpoint("last")
        await until(lambda: len(service.asked) == 1)
        work._request_cancel()
        await work.leave()
    assert service.methods == ["StreamProgress", "AcknowledgeCancellation"]


def interruption(
    update: pb.ProgressUpdate, kind: pb.InterruptionKind.ValueType, revision: int = 9
) -> pb.StreamProgressResponse:
    """Return an interruption of the operation."""
    item = pb.Interruption(operation_id=update.operation_id, kind=kind, revision=revision)
    return pb.StreamProgressResponse(interruption=item)


async def test_requested_cancel_is_answered_at_once():
    """The event is set, the work stays open, and one sign of life shows that it is known."""
    answer = partial(interruption, kind=pb.INTERRUPTION_KIND_CANCEL_REQUESTED)
    service = StreamService(reply=answer)
    async with streaming(service) as milepost:
        work = StreamedWork(milepost, claimed("one", lease_s=60))
        await asyncio.wait_for(work.cancel_requested.wait(), 5)
        await until(lambda: len(service.streams[0]) == 2)
        await asyncio.sleep(0.1)
        assert work.is_open
        work.detach()
    first, second = (time for time, _ in service.streams[0])
    assert second - first < 0.2 * slowdown()


async def test_cancel_of_an_earlier_attempt_is_ignored():
    """A request that is not newer than the claim was about an earlier attempt."""
    kind = pb.INTERRUPTION_KIND_CANCEL_REQUESTED
    service = StreamService(reply=partial(interruption, kind=kind, revision=5))
    async with streaming(service) as milepost:
        work = StreamedWork(milepost, claimed("one", lease_s=0.3, revision=5))
        await until(lambda: sum(map(len, service.streams)) > 2)
        assert not work.cancel_requested.is_set()
        work.detach()


async def test_block_resumes_and_saves_without_a_stream():
    """A block reads the checkpoint of its start, and each of its own is one stored report."""
    progressed = pb.UpdateProgressResponse(operation=operation("PROCESSING", attempt=1))
    completed = pb.CompleteOperationResponse(operation=operation("COMPLETED", attempt=1))
    begin = started(checkpoint=to_any({"done": 3}))
    async with (
        talking(begin, progressed, progressed, completed) as (milepost, service),
        milepost.work(ID) as work,
    ):
        await work.checkpoint({"done": 4})
        await work.progress(0.5, checkpoint={"done": 5})
        await work.flush()
        assert isinstance(work, Work)
        assert work.resumed_from == {"done": 3}
        assert not work.cancel_requested.is_set()
    saved = [from_any(request.checkpoint) for request in service.requests[1:3]]
    assert saved == [{"done": 4}, {"done": 5}]
