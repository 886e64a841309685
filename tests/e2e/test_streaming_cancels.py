"""Requested cancels and checkpoints on a progress stream."""

import pytest
from google.protobuf import any_pb2

from milepost.gen.milepost.v1 import operation_pb2
from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from tests.e2e.rpcs import BROKEN
from tests.e2e.test_release import claim, claimed, seconds
from tests.e2e.test_streaming import AT_ONCE_S, Stream, streaming


def saved(text: str) -> any_pb2.Any:
    """Return a checkpoint."""
    return any_pb2.Any(type_url="example.com/state", value=text.encode())


async def acknowledged(stream: Stream, operation_id: str) -> None:
    """Report the first progress, and wait until it is committed."""
    assert isinstance(await stream.ask(operation_id, attempt=1, progress=0.1), pb.Acknowledgement)


async def test_requested_cancel_is_pushed_once(any_service, alice, worker, function):
    """The worker is asked once and keeps the operation; its next update is the receipt."""
    operation = claimed(alice, worker, function)
    async with streaming(any_service, worker) as stream:
        await acknowledged(stream, operation.id)
        asked = alice.transition("CancelOperation", operation.id, grace=seconds(60))
        item = await stream.item(AT_ONCE_S)
        assert (item.operation_id, item.kind) == (
            operation.id,
            pb.INTERRUPTION_KIND_CANCEL_REQUESTED,
        )
        assert item.revision == asked.revision
        assert not alice.get(operation.id).HasField("cancel_delivered_time")
        answers = [await stream.ask(operation.id, attempt=1) for _ in range(2)]
        assert all(isinstance(answer, pb.Acknowledgement) for answer in answers)
        told = alice.get(operation.id)
        assert told.status == operation_pb2.OPERATION_STATUS_PROCESSING
        assert told.HasField("cancel_delivered_time")
        worker.transition("AcknowledgeCancellation", operation.id, attempt=1)
        kinds = [item.kind for item in await stream.rest() if isinstance(item, pb.Interruption)]
        assert pb.INTERRUPTION_KIND_CANCEL_REQUESTED not in kinds


async def test_end_of_the_grace_interrupts(any_service, alice, worker, function):
    """A worker that ignores the request is cut off at the end of the grace."""
    operation = claimed(alice, worker, function)
    async with streaming(any_service, worker) as stream:
        await acknowledged(stream, operation.id)
        alice.transition("CancelOperation", operation.id, grace=seconds(1))
        first = await stream.interruption()
        assert first.kind == pb.INTERRUPTION_KIND_CANCEL_REQUESTED
        second = await stream.interruption(patience=30)
        assert second.kind == pb.INTERRUPTION_KIND_CANCELLED
    assert alice.get(operation.id).status == operation_pb2.OPERATION_STATUS_CANCELLED


@pytest.mark.parametrize("method", ["ReleaseOperation", "FailOperation"])
async def test_attempt_that_another_ends_is_lost(any_service, alice, worker, function, method):
    """A release or a retry by the owner interrupts the worker of the attempt."""
    operation = claimed(alice, worker, function)
    fields = {"retryable": True, "errors": [BROKEN]} if method == "FailOperation" else {}
    async with streaming(any_service, worker) as stream:
        await acknowledged(stream, operation.id)
        alice.transition(method, operation.id, **fields)
        assert (await stream.interruption()).kind == pb.INTERRUPTION_KIND_LEASE_LOST


async def test_newest_checkpoint_is_kept(any_service, alice, worker, function):
    """Of coalesced updates the newest checkpoint is committed, and goes to the next attempt."""
    operation = claimed(alice, worker, function)
    async with streaming(any_service, worker) as stream:
        await acknowledged(stream, operation.id)
        for number in range(5):
            await stream.send(operation.id, attempt=1, checkpoint=saved(f"state {number}"))
        await stream.send(operation.id, attempt=1, progress=0.5)  # keeps the checkpoint
        assert isinstance(await stream.item(), pb.Acknowledgement)
        assert alice.get(operation.id).checkpoint == saved("state 4")
    worker.transition("ReleaseOperation", operation.id, attempt=1)
    again = claim(worker, function)
    assert (again.attempt, again.checkpoint) == (2, saved("state 4"))


async def test_large_checkpoint_is_an_error_item(any_service, alice, worker, function):
    """A checkpoint above its limit refuses its update, and the stream goes on."""
    operation = claimed(alice, worker, function)
    async with streaming(any_service, worker) as stream:
        item = await stream.ask(operation.id, attempt=1, checkpoint=saved("x" * 65_537))
        assert (item.reason, item.operation_id) == ("INVALID_REQUEST", operation.id)
        await acknowledged(stream, operation.id)


def test_acknowledged_checkpoint_survives_a_kill(unswept):
    """A checkpoint that was acknowledged is there after the service was killed."""
    alice, worker = unswept.client("alice"), unswept.worker()
    operation = claimed(alice, worker, "test.kill")
    worker.transition("UpdateProgress", operation.id, attempt=1, checkpoint=saved("one"))
    unswept.kill()
    unswept.start()
    assert alice.get(operation.id).checkpoint == saved("one")
