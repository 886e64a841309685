"""The Python client and the real service: the life of an operation, for caller and worker."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import any_pb2, wrappers_pb2

from milepost_client import (
    Cancelled,
    IllegalTransition,
    InvalidRequest,
    Milepost,
    OperationCancelled,
    OperationError,
    OperationFailed,
    OperationNotFound,
    ProgressDecrease,
    RequestIdReused,
    RevisionMismatch,
    Status,
    StillRunning,
    SyncMilepost,
    Unauthenticated,
)

UNKNOWN = "op_000000000000000000000000"


def new_subject() -> str:
    """Return a new subject, so that the tests can share one service."""
    return f"alice-{uuid.uuid4().hex}"


@pytest.fixture
async def clients(service) -> AsyncIterator[tuple[Milepost, Milepost]]:
    """A caller with a new subject, and a worker for everything below ``video.``."""
    worker_key = service.api_key("wally", roles=("WORKER",), functions=("video.*",))
    async with (
        Milepost(service.address, api_key=service.api_key(new_subject())) as caller,
        Milepost(service.address, api_key=worker_key) as worker,
    ):
        yield caller, worker


async def test_life_of_an_operation(clients):
    """An operation is created, started, worked on and completed; its result comes back."""
    caller, worker = clients
    before = datetime.now(UTC) - timedelta(minutes=1)
    operation = await caller.create(
        "video.transcode", version="2", metadata={"source": "in.mov", "owner": "mallory"}
    )
    assert (operation.status, operation.revision) == ("PENDING", 1)
    assert operation.owner.startswith("alice-")
    assert (operation.progress, operation.replayed) == (None, False)
    assert before < operation.create_time < operation.expire_time

    async with worker.work(operation.id, worker="w1") as work:
        await work.progress(0.4, "halfway, nearly")
        seen = await caller.get(operation.id)
        assert (seen.status, seen.progress, seen.worker) == ("PROCESSING", 0.4, "w1")
        assert seen.progress_message == "halfway, nearly"
        work.result = {"frames": 1200, "codecs": ["h264", None], "ratio": 0.5}

    assert await caller.result(operation.id) == work.result
    done = await caller.get(operation.id)
    assert (done.status, done.progress, done.attempt) == (Status.COMPLETED, 1.0, 1)
    assert done.metadata == {"source": "in.mov", "owner": "mallory"}
    assert done.complete_time is not None


async def test_caller_waits_while_the_worker_works(clients):
    """A caller that waits for the result gets it soon after the worker is done."""
    caller, worker = clients
    operation = await caller.create("video.transcode", retry_after=1)
    waiting = asyncio.create_task(caller.result(operation.id, timeout=30))
    async with worker.work(operation.id) as work:
        work.result = "done"
    assert await waiting == "done"


async def test_exception_of_the_worker_reaches_the_caller(clients):
    """An exception raised in the work block is the error that the caller reads."""
    caller, worker = clients
    operation = await caller.create("video.transcode")
    with pytest.raises(ZeroDivisionError):
        async with worker.work(operation.id):
            raise ZeroDivisionError("no frames")
    with pytest.raises(OperationFailed) as caught:
        await caller.result(operation.id)
    assert caught.value.errors == (OperationError("ZeroDivisionError", "no frames"),)


async def test_cancellation_reaches_the_worker(clients):
    """A cancelled operation raises Cancelled in the block, and stays cancelled."""
    caller, worker = clients
    operation = await caller.create("video.transcode")
    async with AsyncExitStack() as stack:
        work = await stack.enter_async_context(worker.work(operation.id))
        await caller.cancel(operation.id, "changed my mind")
        with pytest.raises(Cancelled) as caught:
            await work.progress(0.5)
    assert (caught.value.status, caught.value.reason) == ("CANCELLED", "ILLEGAL_TRANSITION")
    with pytest.raises(OperationCancelled):
        await caller.result(operation.id)


async def test_message_as_result_comes_back_packed(clients):
    """A result of any message type comes back byte for byte, as the Any that holds it."""
    caller, worker = clients
    operation = await caller.create("video.transcode")
    async with worker.work(operation.id) as work:
        work.result = wrappers_pb2.StringValue(value="x")
    packed = await caller.result(operation.id)
    assert isinstance(packed, any_pb2.Any)
    back = wrappers_pb2.StringValue()
    assert packed.Unpack(back)
    assert back.value == "x"


async def test_create_can_be_repeated(clients):
    """The same request_id finds the same operation; with other content it is refused."""
    caller, _ = clients
    first = await caller.create("video.transcode", request_id="r1")
    second = await caller.create("video.transcode", request_id="r1")
    assert (second.id, first.replayed, second.replayed) == (first.id, False, True)
    with pytest.raises(RequestIdReused):
        await caller.create("audio.mix", request_id="r1")


async def test_transitions_can_be_repeated(clients):
    """A transition with the same request_id happens once; the second answer is a replay."""
    caller, worker = clients
    operation = await caller.create("video.transcode")
    first = await worker.start(operation.id, request_id="s")
    again = await worker.start(operation.id, request_id="s")
    assert (first.replayed, again.replayed, again.revision) == (False, True, 2)
    first = await worker.complete(operation.id, 7, request_id="c", attempt=first.attempt)
    again = await worker.complete(operation.id, 7, request_id="c", attempt=first.attempt)
    assert (first.replayed, again.replayed, again.revision) == (False, True, 3)
    assert again.result == 7


async def test_stale_revision_is_refused(clients):
    """A cancel with an old expected_revision is refused with both revisions."""
    caller, worker = clients
    operation = await caller.create("video.transcode")
    await worker.start(operation.id)
    with pytest.raises(RevisionMismatch) as caught:
        await caller.cancel(operation.id, expected_revision=operation.revision)
    assert caught.value.metadata == {"expected": "1", "actual": "2"}


async def test_progress_does_not_go_back(clients):
    """A decrease of progress is refused, and the work goes on."""
    caller, worker = clients
    operation = await caller.create("video.transcode")
    async with worker.work(operation.id) as work:
        await work.progress(0.5)
        with pytest.raises(ProgressDecrease):
            await work.progress(0.1)
    assert (await caller.get(operation.id)).status is Status.COMPLETED


async def test_illegal_transition_is_explained(clients):
    """A transition that the status does not allow names the status found and those allowed."""
    caller, worker = clients
    operation = await caller.create("video.transcode")
    with pytest.raises(IllegalTransition) as caught:
        await worker.complete(operation.id, 7)
    assert (caught.value.transition, caught.value.status) == ("complete", "PENDING")
    assert caught.value.allowed == {"PROCESSING"}


async def test_every_violation_is_named(clients):
    """A request with many faults is refused once, with every violation."""
    caller, _ = clients
    with pytest.raises(InvalidRequest) as caught:
        await caller.create("", request_id="not allowed!", version="x" * 300)
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {"function", "request_id", "version"}


async def test_waiting_may_end_before_the_operation(clients):
    """A wait that times out returns the running operation; a result call raises."""
    caller, _ = clients
    operation = await caller.create("video.transcode")
    assert (await caller.wait(operation.id, timeout=0.1)).status is Status.PENDING
    with pytest.raises(StillRunning):
        await caller.result(operation.id, timeout=0.1)


async def test_list_goes_over_all_pages(clients):
    """Listing returns every operation once, newest first, for every page size."""
    caller, _ = clients
    ids = [(await caller.create("video.transcode")).id for _ in range(5)]
    await caller.create("audio.mix")
    found = caller.list(function="video.transcode", statuses=[Status.PENDING], page_size=2)
    assert [operation.id async for operation in found] == ids[::-1]


async def test_deleted_operation_is_gone(clients):
    """An operation can be deleted once it has ended, and not before."""
    caller, _ = clients
    operation = await caller.create("video.transcode")
    with pytest.raises(IllegalTransition):
        await caller.delete(operation.id)
    await caller.cancel(operation.id)
    await caller.delete(operation.id)
    with pytest.raises(OperationNotFound):
        await caller.get(operation.id)


async def test_strangers_find_nothing(service, clients):
    """An operation of another owner is indistinguishable from a missing one."""
    caller, _ = clients
    operation = await caller.create("video.transcode")
    async with Milepost(service.address, api_key=service.api_key(new_subject())) as stranger:
        for operation_id in (operation.id, UNKNOWN):
            with pytest.raises(OperationNotFound) as caught:
                await stranger.get(operation_id)
            assert type(caught.value) is OperationNotFound
        assert [operation async for operation in stranger.list()] == []


async def test_invalid_key_is_refused(service):
    """A key that was never issued is refused without further details."""
    async with Milepost(service.address, api_key="mp_unknown_key") as milepost:
        with pytest.raises(Unauthenticated):
            await milepost.get(UNKNOWN)


async def test_life_without_an_event_loop(service):
    """The blocking client leads an operation through the same life."""
    alice, wally = (
        service.api_key(new_subject()),
        service.api_key("wally", roles=("WORKER",), functions=("*",)),
    )

    def live():
        with (
            SyncMilepost(service.address, api_key=alice) as caller,
            SyncMilepost(service.address, api_key=wally) as worker,
        ):
            operation = caller.create("video.transcode")
            with worker.work(operation.id) as work:
                work.progress(0.4, "halfway, nearly")
                work.result = [1, 2]
            assert [found.id for found in caller.list()] == [operation.id]
            return caller.result(operation.id, timeout=30)

    assert await asyncio.to_thread(live) == [1, 2]
