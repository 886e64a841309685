"""A requested cancel: the worker is notified, has time to clean up, and acknowledges it."""

import asyncio
import threading
from typing import Any

import pytest

from milepost_client import (
    AcknowledgeCancellation,
    CancellationNotRequested,
    Milepost,
    Operation,
    Status,
    SyncWork,
    Work,
    workers,
)
from tests.e2e.working import SOON_S, until_so, working
from tests.machine import slowdown


async def request_cancel(caller: Milepost, function: str, *, grace: float) -> Operation:
    """Create an operation, wait until its function has begun, and request to cancel it."""
    operation = await caller.create(function, max_attempts=1)
    await until_so(caller, operation.id, lambda o: o.progress is not None)
    requested = await caller.cancel(operation.id, "changed my mind", grace=grace)
    assert (requested.status, requested.cancel_reason) == ("PROCESSING", "changed my mind")
    return requested


async def coroutine(work: Work) -> None:
    """Wait for the cancel, clean up, and acknowledge it."""
    await work.progress(0.5)
    await work.cancel_requested.wait()
    await asyncio.sleep(0.1)
    raise AcknowledgeCancellation


def plain(work: SyncWork) -> None:
    """Do the same in a thread."""
    work.progress(0.5)
    assert work.cancel_requested.wait(SOON_S)
    raise AcknowledgeCancellation


async def called(work: Work) -> None:
    """Acknowledge the cancel by a call."""
    await work.progress(0.5)
    await work.cancel_requested.wait()
    await work.acknowledge_cancellation()


@pytest.mark.parametrize("does", [coroutine, plain, called])
async def test_requested_cancel_has_a_receipt(any_service, caller, function, does):
    """The owner reads when the cancel was requested, delivered, and acknowledged."""
    async with working(any_service, function, does):
        requested = await request_cancel(caller, function, grace=SOON_S)
        ended = await caller.wait(requested.id, timeout=SOON_S)
    assert ended.status is Status.CANCELLED
    assert requested.cancel_request_time is not None
    assert ended.cancel_delivered_time is not None
    assert ended.cancel_time is not None
    assert requested.cancel_request_time <= ended.cancel_delivered_time <= ended.cancel_time
    delivery = ended.cancel_delivered_time - requested.cancel_request_time
    assert delivery.total_seconds() < 2 * slowdown()
    events = [event async for event in caller.events(requested.id)]
    assert [event.transition for event in events][-2:] == ["request_cancel", "acknowledge"]
    assert events[-2].reason == "changed my mind"


async def test_worker_that_ignores_the_request_is_cut_off(any_service, caller, function):
    """At the end of the grace the operation is cancelled, and its function is too."""
    cancelled = asyncio.Event()

    async def does(work: Work) -> None:
        await work.progress(0.5)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with working(any_service, function, does):
        requested = await request_cancel(caller, function, grace=1)
        ended = await caller.wait(requested.id, timeout=SOON_S)
        await asyncio.wait_for(cancelled.wait(), 2)
    assert ended.status is Status.CANCELLED
    assert ended.cancel_delivered_time is not None
    assert ended.cancel_time is not None
    assert requested.cancel_expire_time is not None
    assert 0 <= (ended.cancel_time - requested.cancel_expire_time).total_seconds() < 3 * slowdown()
    events = [event async for event in caller.events(requested.id)]
    assert events[-1].transition == "cancel"


@pytest.mark.parametrize("how", ["return", "raise"])
async def test_function_may_end_in_its_own_way(any_service, caller, function, how):
    """After the request the function may still complete its operation, or fail it."""

    async def does(work: Work) -> str:
        await work.progress(0.5)
        await work.cancel_requested.wait()
        if how == "raise":
            raise ValueError("half done")
        return "done all the same"

    async with working(any_service, function, does):
        requested = await request_cancel(caller, function, grace=SOON_S)
        ended = await caller.wait(requested.id, timeout=SOON_S)
    expected = {"return": Status.COMPLETED, "raise": Status.FAILED}
    assert ended.status is expected[how]
    assert ended.cancel_request_time == requested.cancel_request_time


async def test_block_without_a_stream_learns_of_the_request(caller):
    """A work block reads the request in the answer to its next report."""
    operation = await caller.create("video.transcode")
    async with caller.work(operation.id) as work:
        assert not work.cancel_requested.is_set()
        await caller.cancel(operation.id, grace=SOON_S)
        await work.progress(0.5)
        assert work.cancel_requested.is_set()
        assert work.operation.cancel_delivered_time is not None
        await work.acknowledge_cancellation()
    assert (await caller.get(operation.id)).status is Status.CANCELLED


async def test_block_acknowledges_with_the_exception(caller):
    """The exception ends a block too, and propagates like every other one."""
    operation = await caller.create("video.transcode")
    with pytest.raises(AcknowledgeCancellation):  # noqa: PT012 - the block is what raises
        async with caller.work(operation.id) as work:
            await caller.cancel(operation.id, grace=SOON_S)
            raise AcknowledgeCancellation
    assert not work.is_open
    assert (await caller.get(operation.id)).status is Status.CANCELLED


async def test_acknowledgement_that_nobody_asked_for_is_a_failure(any_service, caller, function):
    """A function that acknowledges a cancel without a request fails its operation."""
    refused: list[BaseException] = []

    async def does(work: Work) -> None:
        with pytest.raises(CancellationNotRequested) as caught:
            await work.acknowledge_cancellation()
        refused.append(caught.value)
        assert work.is_open
        raise AcknowledgeCancellation

    async with working(any_service, function, does):
        operation = await caller.create(function, max_attempts=1)
        failed = await caller.wait(operation.id, timeout=SOON_S)
    assert (failed.status, len(refused)) == (Status.FAILED, 1)
    assert failed.errors[0].code == "CancellationNotRequested"


async def test_stopping_worker_acknowledges_requests_first(
    any_service, caller, function, monkeypatch
):
    """A worker that stops ends what is to be cancelled, and releases the rest after that."""
    monkeypatch.setattr(workers, "MAX_RELEASES", 1)

    async def does(work: Work) -> None:
        await work.progress(0.5)
        await asyncio.Event().wait()

    async with working(any_service, function, does, grace=0.1):
        kept = [await caller.create(function) for _ in range(8)]
        for operation in kept:
            await until_so(caller, operation.id, lambda o: o.progress is not None)
        requested = await request_cancel(caller, function, grace=60)
        await until_so(caller, requested.id, lambda o: o.cancel_delivered_time is not None)
    ended = await caller.get(requested.id)
    events = [event async for event in caller.events(requested.id)]
    assert (ended.status, events[-1].transition) == (Status.CANCELLED, "acknowledge")
    for operation in kept:
        released = [event async for event in caller.events(operation.id)][-1]
        assert released.transition == "release"
        assert released.time > events[-1].time


async def test_thread_is_told_while_it_waits(any_service, caller, function):
    """A plain function may wait for the request in any of its threads."""
    told = threading.Event()

    def does(work: SyncWork) -> Any:
        work.progress(0.5)

        def wait() -> None:
            assert work.cancel_requested.wait(SOON_S)
            told.set()

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        return "done"

    async with working(any_service, function, does):
        requested = await request_cancel(caller, function, grace=SOON_S)
        ended = await caller.wait(requested.id, timeout=SOON_S)
    assert (ended.status, told.is_set()) == (Status.COMPLETED, True)
