"""Waiting for the end of an operation, and asking for its result."""

import asyncio
from datetime import timedelta
from itertools import islice

import grpc
import pytest
from google.protobuf import duration_pb2

from milepost_client import (
    OperationCancelled,
    OperationFailed,
    OperationNotFound,
    RateLimited,
    Status,
    StillRunning,
)
from milepost_client.convert import to_any
from milepost_client.gen.milepost.v1 import operation_pb2 as pb
from milepost_client.pace import growing_pauses
from tests.unit.test_client_script import ID, Refusal, got, talking

SLOW = duration_pb2.Duration(seconds=3600)


def limited(**pause):
    """Return the refusal of a caller that reads too often."""
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    return Refusal(code, "RATE_LIMITED", retry_after=timedelta(**pause) if pause else None)


async def test_wait_reads_until_the_end():
    """Waiting ends with the first read that finds the operation terminal."""
    async with talking(got(), got("PROCESSING"), got("FAILED"), got()) as (milepost, service):
        operation = await milepost.wait(ID)
    assert operation.status is Status.FAILED
    assert service.methods == ["GetOperation"] * 3


async def test_wait_tells_how_it_stands_when_the_timeout_passes():
    """When the timeout passes, waiting answers with the operation as it then stands."""
    script = [got("PENDING", retry_after=SLOW), *[got("PROCESSING", retry_after=SLOW)] * 5]
    async with talking(*script) as (milepost, service):
        operation = await milepost.wait(ID, timeout=0.02)
    assert operation.status is Status.PROCESSING
    assert service.asked[-1].time - service.asked[0].time < 5


async def test_wait_of_no_time_reads_once():
    """A timeout of zero is one read."""
    async with talking(got("PROCESSING")) as (milepost, service):
        assert (await milepost.wait(ID, timeout=0)).status is Status.PROCESSING
    assert len(service.asked) == 1


async def test_short_work_is_noticed_long_before_retry_after():
    """The first looks come soon, whatever pause the operation suggests as the longest."""
    script = [got("PROCESSING", retry_after=SLOW), got("COMPLETED")]
    async with talking(*script) as (milepost, service):
        await milepost.wait(ID)
    first, second = service.asked
    assert second.time - first.time < 1


def test_pauses_grow_up_to_the_longest_and_never_agree():
    """Pauses double up to the longest, each shortened at random by at most a half."""
    pauses = list(islice(growing_pauses(first=1.0, most=4.0), 200))
    assert 0.5 <= pauses[0] <= 1.0
    assert 1.0 <= pauses[1] <= 2.0
    assert all(2.0 <= pause <= 4.0 for pause in pauses[2:])
    assert len(set(pauses)) > 190


async def test_limit_on_the_way_only_slows_the_waiting_down():
    """Being told to read less often delays the next look by what was asked, and no more."""
    async with talking(got(), limited(milliseconds=200), limited(), got("COMPLETED")) as (
        milepost,
        service,
    ):
        assert (await milepost.wait(ID)).status is Status.COMPLETED
    times = [asked.time for asked in service.asked]
    assert times[2] - times[1] >= 0.2


async def test_limit_at_the_first_look_is_told():
    """A wait that cannot even begin says so."""
    async with talking(limited(seconds=60)) as (milepost, _):
        with pytest.raises(RateLimited):
            await milepost.wait(ID)


async def test_vanished_operation_ends_the_waiting():
    """An operation that vanishes while it is waited for ends the waiting with its error."""
    gone = Refusal(grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND")
    async with talking(got(), gone) as (milepost, _):
        with pytest.raises(OperationNotFound):
            await milepost.wait(ID)


async def test_unknown_status_is_waited_out():
    """A status that only a newer client knows is not taken for the end."""
    unknown = got()
    unknown.operation.status = 99  # type: ignore[assignment]
    async with talking(unknown, got("COMPLETED")) as (milepost, _):
        assert (await milepost.wait(ID)).status is Status.COMPLETED


@pytest.mark.parametrize("value", [None, 7, [1, "two", None], {"frames": 1200}])
async def test_result_is_what_the_work_produced(value):
    """The result of a completed operation is returned as a plain value."""
    done = got("COMPLETED", result=to_any(value))
    async with talking(got(), done) as (milepost, _):
        assert await milepost.result(ID) == value


async def test_result_of_a_failed_operation_is_its_failure():
    """Asking for the result of a failed operation raises why it failed."""
    failure = pb.OperationError(code="CODEC", message="no such codec")
    async with talking(got("FAILED", errors=[failure])) as (milepost, _):
        with pytest.raises(OperationFailed) as caught:
            await milepost.result(ID)
    assert [error.code for error in caught.value.errors] == ["CODEC"]
    assert caught.value.operation.id == ID


async def test_result_of_a_cancelled_operation_is_its_cancellation():
    """Asking for the result of a cancelled operation raises that it was cancelled."""
    async with talking(got("CANCELLED")) as (milepost, _):
        with pytest.raises(OperationCancelled):
            await milepost.result(ID)


async def test_result_that_is_not_there_in_time_is_a_timeout():
    """When the timeout passes, StillRunning tells how far it is; it is a TimeoutError, too."""
    async with talking(got("PROCESSING", progress=0.4)) as (milepost, _):
        with pytest.raises(TimeoutError) as caught:
            await milepost.result(ID, timeout=timedelta(0))
    assert isinstance(caught.value, StillRunning)
    assert caught.value.operation.progress == 0.4


async def test_waiting_can_be_cancelled():
    """A task that waits can be cancelled at any time."""
    async with talking(got(retry_after=SLOW)) as (milepost, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await milepost.wait(ID)
