"""The work block: started before it, ended with it, and honest about what happened inside."""

import asyncio

import grpc
import pytest

from milepost_client import (
    Cancelled,
    IllegalTransition,
    OperationError,
    ProgressDecrease,
    StaleAttempt,
)
from milepost_client.convert import from_any
from milepost_client.gen.milepost.v1 import worker_service_pb2 as pb
from tests.unit.client_script import ID, Refusal, illegal, operation, started, talking

PROGRESSED = pb.UpdateProgressResponse(operation=operation("PROCESSING", attempt=1, progress=0.4))
COMPLETED = pb.CompleteOperationResponse(operation=operation("COMPLETED", attempt=1))
FAILED = pb.FailOperationResponse(operation=operation("FAILED", attempt=1))
STALE = Refusal(grpc.StatusCode.ABORTED, "STALE_ATTEMPT", {"expected": "1", "actual": "2"})


class Rude(Exception):
    """An exception without a text."""

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


async def test_block_starts_and_completes_the_operation():
    """The operation is started before the block, and completed with its result after it."""
    async with (
        talking(started(), PROGRESSED, COMPLETED) as (milepost, service),
        milepost.work(ID, worker="w1") as work,
    ):
        assert work.operation.attempt == 1
        await work.progress(0.4, "halfway, nearly")
        assert work.operation.progress == 0.4
        work.result = {"frames": 1200}
    assert service.methods == ["StartOperation", "UpdateProgress", "CompleteOperation"]
    start, progress, complete = service.requests
    assert start.worker == "w1"
    assert (progress.progress, progress.message) == (0.4, "halfway, nearly")
    assert from_any(complete.result) == {"frames": 1200}


async def test_every_write_of_the_block_names_its_attempt():
    """Every write names the attempt that was started, whatever later answers say."""
    async with talking(started(attempt=3), PROGRESSED, FAILED) as (milepost, service):
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what raises
            async with milepost.work(ID) as work:
                await work.progress()
                raise ZeroDivisionError
    assert [request.attempt for request in service.requests[1:]] == [3, 3]


async def test_block_without_a_result_completes_without_one():
    """A block that sets no result completes the operation without one."""
    async with talking(started(), COMPLETED) as (milepost, service), milepost.work(ID):
        pass
    assert not service.requests[-1].HasField("result")


async def test_exception_fails_the_operation_and_goes_on():
    """An exception fails the operation, by its class and text, and is raised unchanged."""
    problem = KeyError("frame 7")
    async with talking(started(), FAILED) as (milepost, service):
        with pytest.raises(KeyError) as caught:
            async with milepost.work(ID):
                raise problem
    assert caught.value is problem
    assert service.methods == ["StartOperation", "FailOperation"]
    (error,) = service.requests[-1].errors
    assert (error.code, error.message) == ("KeyError", "'frame 7'")


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (Rude(), "Rude without a readable text"),
        (ValueError("a\0b"), "a\\x00b"),
        (ValueError(), "ValueError()"),
        (ValueError("  \n"), "ValueError('  \\n')"),
        (ValueError("bad name \udcff"), "bad name \\udcff"),
        (ValueError("x" * 20_000), "x" * 10_000),
    ],
    ids=["rude", "NUL", "empty", "blank", "surrogate", "long"],
)
async def test_every_exception_makes_a_message_that_can_be_stored(problem, message):
    """The stored message is never blank, valid Unicode, and of bounded length."""
    async with talking(started(), FAILED) as (milepost, service):
        with pytest.raises(type(problem)):
            async with milepost.work(ID):
                raise problem
    assert service.requests[-1].errors[0].message == message


async def test_interrupted_block_fails_the_operation():
    """A task that is cancelled in the block leaves no operation behind that nobody works on."""
    async with talking(started(), FAILED) as (milepost, service):
        inside = asyncio.Event()

        async def do_work():
            async with milepost.work(ID):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(do_work())
        await asyncio.wait_for(inside.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert service.requests[-1].errors[0].code == "CancelledError"


@pytest.mark.parametrize("step", ["progress", "complete"])
async def test_cancellation_is_raised_in_the_block(step):
    """When somebody has cancelled the operation, the next step raises it; it stays cancelled."""
    async with talking(started(), illegal(step, "CANCELLED")) as (milepost, service):
        with pytest.raises(Cancelled):  # noqa: PT012 - the block is what raises
            async with milepost.work(ID) as work:
                await getattr(work, step)()
                pytest.fail("the step was refused")
    assert len(service.asked) == 2


async def test_cancellation_is_raised_at_the_end_of_the_block():
    """A block that takes no step learns of the cancellation at its end."""
    async with talking(started(), illegal("complete", "CANCELLED")) as (milepost, service):
        with pytest.raises(Cancelled):
            async with milepost.work(ID):
                pass
    assert service.methods == ["StartOperation", "CompleteOperation"]


async def test_block_may_deal_with_cancellation_itself():
    """A block that catches the cancellation ends in peace; nothing more is written."""
    async with (
        talking(started(), illegal("progress", "CANCELLED")) as (milepost, service),
        milepost.work(ID) as work,
    ):
        with pytest.raises(Cancelled):
            await work.progress(0.5)
        assert not work.is_open
    assert len(service.asked) == 2


async def test_exception_that_meets_a_cancellation_goes_on_with_a_note():
    """An exception that cannot fail the operation any more is raised, and says so in a note."""
    async with talking(started(), illegal("fail", "CANCELLED")) as (milepost, _):
        with pytest.raises(ZeroDivisionError) as caught:
            async with milepost.work(ID):
                raise ZeroDivisionError
    assert caught.value.__notes__ == [f"The operation {ID} was not failed: as scripted"]


async def test_lost_work_is_left_to_its_new_worker():
    """A worker that lost the work stops, and writes nothing over the next one."""
    async with talking(started(), STALE) as (milepost, service):
        with pytest.raises(StaleAttempt):
            async with milepost.work(ID) as work:
                await work.progress(0.5)
    assert len(service.asked) == 2


async def test_refused_progress_leaves_the_work_open():
    """Progress that is refused for itself can be corrected, and the work goes on."""
    decrease = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "PROGRESS_DECREASE")
    async with (
        talking(started(), decrease, COMPLETED) as (milepost, service),
        milepost.work(ID) as work,
    ):
        with pytest.raises(ProgressDecrease):
            await work.progress(0.1)
        assert work.is_open
    assert service.methods[-1] == "CompleteOperation"


async def test_completed_work_takes_no_more():
    """Completing ends the work: every further word about it is a mistake, and told as one."""
    async with talking(started(), COMPLETED) as (milepost, service), milepost.work(ID) as work:
        await work.complete([1, 2])
        for step in (work.complete(), work.progress(0.5), work.fail(OperationError("E", "e"))):
            with pytest.raises(RuntimeError, match="is over"):
                await step
        with pytest.raises(RuntimeError, match="is over"):
            work.result = 7
    assert service.methods == ["StartOperation", "CompleteOperation"]
    assert from_any(service.requests[-1].result) == [1, 2]


async def test_complete_takes_the_result_that_was_set():
    """Completing without a result takes the one that was set before."""
    async with talking(started(), COMPLETED) as (milepost, service), milepost.work(ID) as work:
        work.result = 7
        await work.complete()
    assert from_any(service.requests[-1].result) == 7


async def test_work_can_be_failed_without_an_exception():
    """A block may fail the operation in its own words, and end normally."""
    async with talking(started(), FAILED) as (milepost, service), milepost.work(ID) as work:
        await work.fail(OperationError("CODEC", "no such codec", "audio", {"codec": "x"}))
    assert service.methods == ["StartOperation", "FailOperation"]
    assert service.requests[-1].errors[0].source == "audio"


async def test_failing_a_cancelled_operation_is_tried_once():
    """A block that cannot fail the operation, because it is cancelled, is told so once."""
    async with talking(started(), illegal("fail", "CANCELLED")) as (milepost, service):
        with pytest.raises(Cancelled) as caught:
            async with milepost.work(ID) as work:
                await work.fail(OperationError("E", "e"))
    assert not hasattr(caught.value, "__notes__")
    assert len(service.asked) == 2


async def test_exception_after_the_end_only_goes_on():
    """An exception after completing does not touch the operation."""
    async with talking(started(), COMPLETED) as (milepost, service):
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what raises
            async with milepost.work(ID) as work:
                await work.complete()
                raise ZeroDivisionError
    assert len(service.asked) == 2


async def test_block_is_not_entered_when_the_start_is_refused():
    """When the operation cannot be started, the block does not run."""
    async with talking(illegal("start", "PROCESSING")) as (milepost, service):
        with pytest.raises(IllegalTransition):
            async with milepost.work(ID):
                pytest.fail("the block was entered")
    assert service.methods == ["StartOperation"]


async def test_work_shows_only_its_operation():
    """The text form of the work names its operation and nothing it carries."""
    async with talking(started(), COMPLETED) as (milepost, _), milepost.work(ID) as work:
        work.result = "secret"
        assert repr(work) == f"Work('{ID}')"
