"""Waiting for the end of an operation, and asking for its result."""

import asyncio
from datetime import timedelta

import grpc
import pytest

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
from milepost_client.long_poll import MAX_WAIT_S
from milepost_client.pace import Backoff
from tests.machine import slowdown
from tests.unit.client_script import (
    ID,
    Never,
    Refusal,
    awaited,
    talking,
    unavailable,
)

ROUNDING = 1.01
"""gRPC sends a deadline rounded up: it has two or three digits of one unit on the wire."""


def limited(**pause):
    """Return the refusal of a caller that reads too often."""
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    return Refusal(code, "RATE_LIMITED", retry_after=timedelta(**pause) if pause else None)


async def test_wait_asks_until_the_end():
    """Waiting ends with the first answer that finds the operation terminal."""
    async with talking(awaited(), awaited("PROCESSING"), awaited("FAILED"), awaited()) as (
        milepost,
        service,
    ):
        operation = await milepost.wait(ID)
    assert operation.status is Status.FAILED
    assert service.methods == ["WaitOperation"] * 3


async def test_wait_lets_the_service_wait():
    """The service is asked to wait for the time that is left, in calls that it may well answer."""
    script = [awaited("PROCESSING"), awaited("COMPLETED")]
    async with talking(*script, deadline=7.0) as (milepost, service):
        await milepost.wait(ID, timeout=20)
        service.script = [awaited("COMPLETED")]
        await milepost.wait(ID)
    first, second, unbounded = service.asked
    assert 19 < first.request.timeout.ToTimedelta().total_seconds() <= 20
    assert 26 < first.left <= 27 * ROUNDING
    assert second.request.timeout.ToTimedelta() < first.request.timeout.ToTimedelta()
    assert unbounded.request.timeout.ToTimedelta().total_seconds() == MAX_WAIT_S


async def test_wait_tells_how_it_stands_when_the_timeout_passes():
    """When the timeout passes, waiting answers with the operation as it then stands."""
    async with talking(*[awaited("PROCESSING")] * 9) as (milepost, service):
        operation = await milepost.wait(ID, timeout=0.02)
    assert operation.status is Status.PROCESSING
    assert service.asked[-1].time - service.asked[0].time < 5 * slowdown()


async def test_wait_of_no_time_asks_once():
    """A timeout of zero is one look."""
    async with talking(awaited("PROCESSING")) as (milepost, service):
        assert (await milepost.wait(ID, timeout=0)).status is Status.PROCESSING
    assert service.requests[0].timeout.ToTimedelta() == timedelta(0)


async def test_answers_before_their_time_do_not_make_a_storm():
    """When the service answers at once, again and again, the client takes ever longer pauses."""
    async with talking(*[awaited()] * 4, awaited("COMPLETED")) as (milepost, service):
        await milepost.wait(ID)
    times = [asked.time for asked in service.asked]
    assert times[1] - times[0] >= 0.025
    assert times[4] - times[3] >= 0.2


async def test_waiting_survives_a_service_that_is_away():
    """A wait that finds the service unavailable asks again."""
    async with talking(unavailable(), unavailable("DRAINING"), awaited("COMPLETED")) as (
        milepost,
        service,
    ):
        assert (await milepost.wait(ID)).status is Status.COMPLETED
    assert len(service.asked) == 3


def test_pauses_grow_up_to_a_maximum_and_never_agree():
    """Pauses double up to a maximum, each shortened at random by at most a half."""
    backoff = Backoff(first_s=1.0, max_s=4.0)
    pauses = [backoff.pause_s() for _ in range(200)]
    assert 0.5 <= pauses[0] <= 1.0
    assert 1.0 <= pauses[1] <= 2.0
    assert all(2.0 <= pause <= 4.0 for pause in pauses[2:])
    assert len(set(pauses)) > 190


async def test_limit_on_the_way_only_slows_the_waiting_down():
    """Being told to read less often delays the next look by what was asked, and no more."""
    async with talking(awaited(), limited(milliseconds=200), limited(), awaited("COMPLETED")) as (
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
    async with talking(awaited(), gone) as (milepost, _):
        with pytest.raises(OperationNotFound):
            await milepost.wait(ID)


async def test_unknown_status_is_waited_out():
    """A status that only a newer client knows is not taken for the end."""
    unknown = awaited()
    unknown.operation.status = 99  # type: ignore[assignment]
    async with talking(unknown, awaited("COMPLETED")) as (milepost, _):
        assert (await milepost.wait(ID)).status is Status.COMPLETED


@pytest.mark.parametrize("value", [None, 7, [1, "two", None], {"frames": 1200}])
async def test_result_is_what_the_work_produced(value):
    """The result of a completed operation is returned as a plain value."""
    done = awaited("COMPLETED", result=to_any(value))
    async with talking(awaited(), done) as (milepost, _):
        assert await milepost.result(ID) == value


async def test_result_of_a_failed_operation_is_its_failure():
    """Asking for the result of a failed operation raises why it failed."""
    failure = pb.OperationError(code="CODEC", message="no such codec")
    async with talking(awaited("FAILED", errors=[failure])) as (milepost, _):
        with pytest.raises(OperationFailed) as caught:
            await milepost.result(ID)
    assert [error.code for error in caught.value.errors] == ["CODEC"]
    assert caught.value.operation.id == ID


async def test_result_of_a_cancelled_operation_is_its_cancellation():
    """Asking for the result of a cancelled operation raises that it was cancelled."""
    async with talking(awaited("CANCELLED")) as (milepost, _):
        with pytest.raises(OperationCancelled):
            await milepost.result(ID)


async def test_result_that_is_not_there_in_time_is_a_timeout():
    """When the timeout passes, StillRunning tells how far it is; it is a TimeoutError, too."""
    async with talking(awaited("PROCESSING", progress=0.4)) as (milepost, _):
        with pytest.raises(TimeoutError) as caught:
            await milepost.result(ID, timeout=timedelta(0))
    assert isinstance(caught.value, StillRunning)
    assert caught.value.operation.progress == 0.4


async def test_waiting_can_be_cancelled():
    """A task that waits can be cancelled at any time."""
    async with talking(Never()) as (milepost, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await milepost.wait(ID)
