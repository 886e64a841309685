"""The end of the work: tried again while that helps, and never left out for its content."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from math import inf
from typing import Any

import grpc
import pytest

from milepost_client import (
    InternalError,
    InvalidRequest,
    LimitReached,
    MilepostError,
    OperationError,
    StoreUnavailable,
    retry,
    workers,
)
from milepost_client.convert import from_any, from_operation
from milepost_client.gen.milepost.v1 import worker_service_pb2 as pb
from milepost_client.work import LARGE_BYTES, Work
from tests.machine import slowdown
from tests.unit.client_script import ID, Never, Refusal, operation, started, talking

COMPLETED = pb.CompleteOperationResponse(operation=operation("COMPLETED", attempt=1))
FAILED = pb.FailOperationResponse(operation=operation("FAILED", attempt=1))
TOO_LARGE = Refusal(
    grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", violations={"result": "is too large"}
)
BUSY = Refusal(
    grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after=timedelta(milliseconds=100)
)
CUT = Refusal(grpc.StatusCode.UNAVAILABLE, retry_after=timedelta(milliseconds=100))
LIMIT = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED)
AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", retry_after=timedelta(hours=1))


LOOP: list[Any] = []
LOOP.append(LOOP)
DEEP_LIST: list[Any] = []
DEEP_OBJECT: dict[str, Any] = {}
for _ in range(60):
    DEEP_LIST, DEEP_OBJECT = [DEEP_LIST], {"in": DEEP_OBJECT}


async def test_result_that_cannot_be_stored_fails_the_operation():
    """A result too large for the service fails the operation; nobody waits for it in vain."""
    async with talking(started(), TOO_LARGE, FAILED) as (milepost, service):
        with pytest.raises(InvalidRequest):
            async with milepost.work(ID) as work:
                work.result = "much"
    assert service.methods[-1] == "FailOperation"
    assert service.requests[-1].errors[0].code == "InvalidRequest"


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (object(), TypeError),
        ("a\udcff", ValueError),
        (LOOP, ValueError),
        (DEEP_LIST, ValueError),
        (DEEP_OBJECT, ValueError),
    ],
    ids=["no JSON", "surrogate", "loop", "deep list", "deep object"],
)
async def test_result_that_cannot_be_sent_fails_the_operation(result, kind):
    """A result that cannot be sent at all fails the operation, with the reason."""
    async with talking(started(), FAILED) as (milepost, service):
        with pytest.raises(kind):
            async with milepost.work(ID) as work:
                work.result = result
    assert service.methods == ["StartOperation", "FailOperation"]


async def test_result_above_the_limit_of_a_message_fails_the_operation():
    """GRPC refuses such a message without a reason; that is no rate limit."""
    async with talking(started(), LIMIT, FAILED) as (milepost, service):
        with pytest.raises(LimitReached):
            async with milepost.work(ID) as work:
                work.result = "x" * LARGE_BYTES
    assert service.methods == ["StartOperation", "CompleteOperation", "FailOperation"]


async def test_small_result_survives_a_limit_without_a_reason():
    """A proxy that limits the rate gives no reason either."""
    async with (
        talking(started(), LIMIT, COMPLETED) as (milepost, service),
        milepost.work(ID) as work,
    ):
        work.result = "little"
    assert service.methods == ["StartOperation", "CompleteOperation", "CompleteOperation"]


@pytest.mark.parametrize("code", ["UNKNOWN", "CANCELLED", "INTERNAL", "RESOURCE_EXHAUSTED"])
async def test_unexplained_refusals_are_not_tried_for_ever(monkeypatch, code):
    """A proxy that never lets the result pass does not hold the operation for ever."""
    monkeypatch.setattr(retry, "END_TIMEOUT_S", 0.3)
    script = [Refusal(grpc.StatusCode[code]) for _ in range(100)]
    async with (
        asyncio.timeout(5 * slowdown()),
        talking(*script, deadline=0.05) as (milepost, service),
    ):
        work = Work(milepost, from_operation(operation("PROCESSING")), end_timeout_s=inf)
        with pytest.raises(MilepostError):
            await work.complete(7)
        assert work.is_open
        with pytest.raises(MilepostError):
            await work.fail(OperationError("Refused", "by a proxy"))
    assert service.methods.count("CompleteOperation") > 1
    assert service.methods.count("FailOperation") > 1


async def test_error_that_cannot_be_stored_is_replaced_by_one_that_can():
    """When the error itself is refused, the operation fails all the same, and says why."""
    async with talking(started(), TOO_LARGE, FAILED) as (milepost, service):
        with pytest.raises(ZeroDivisionError):
            async with milepost.work(ID):
                raise ZeroDivisionError
    assert service.requests[-1].errors[0].code == "InvalidError"


@pytest.mark.parametrize("away", [BUSY, CUT], ids=["limited", "disconnected"])
async def test_completion_is_tried_again_until_it_is_accepted(away):
    """A result is not thrown away because the service cannot take it for a while."""
    pause_s = 0.1 * slowdown()
    away = replace(away, retry_after=timedelta(seconds=pause_s))
    # A try is not repeated within its deadline, and has its answer before, on a busy machine too.
    talk = talking(started(), away, away, COMPLETED, deadline=pause_s / 2)
    async with talk as (milepost, service), milepost.work(ID) as work:
        work.result = 7
    tries = service.requests[1:]
    assert service.methods[1:] == ["CompleteOperation"] * 3
    assert len({request.request_id for request in tries}) == 1
    assert all(from_any(request.result) == 7 for request in tries)
    gaps = [b.time - a.time for a, b in zip(service.asked[1:], service.asked[2:], strict=False)]
    assert all(gap >= pause_s for gap in gaps), gaps


@pytest.mark.parametrize("away", [BUSY, CUT], ids=["limited", "disconnected"])
async def test_failure_is_tried_again_until_it_is_accepted(away):
    """The reason of a failure is not thrown away either."""
    async with talking(started(), away, FAILED, deadline=0.05) as (milepost, service):
        with pytest.raises(ZeroDivisionError) as caught:
            async with milepost.work(ID):
                raise ZeroDivisionError
    assert service.methods[1:] == ["FailOperation"] * 2
    assert not hasattr(caught.value, "__notes__")


async def test_interrupted_block_tries_its_end_once():
    """A program that is interrupted is not held up by a service that is away."""
    async with talking(started(), BUSY, FAILED) as (milepost, service):
        with pytest.raises(SystemExit):
            async with milepost.work(ID):
                raise SystemExit
    assert service.methods[1:] == ["FailOperation"]


async def test_defect_of_the_service_is_not_tried_for_ever():
    """An end that meets a defect every time is given up after some tries."""
    script = [Refusal(grpc.StatusCode.INTERNAL, "INTERNAL") for _ in range(10)]
    async with talking(started(), *script) as (milepost, service):
        with pytest.raises(InternalError):
            async with milepost.work(ID):
                pass
    assert service.methods[1:] == ["CompleteOperation"] * 6


async def test_unknown_end_is_not_made_a_failure():
    """When no answer tells whether the operation is completed, it is not failed in its place."""
    async with talking(started(), AWAY) as (milepost, service):
        with pytest.raises(StoreUnavailable):
            async with milepost.work(ID) as work:
                work.result = 7
    assert service.methods == ["StartOperation", "CompleteOperation"]


async def test_release_at_the_end_is_tried_again():
    """The release of a worker that ends outlasts a rate limit, with the same request_id."""
    released = pb.ReleaseOperationResponse(operation=operation("PENDING", attempt=1))
    async with talking(BUSY, released) as (milepost, service):
        await milepost._give_back(ID, 1)
    first, second = service.requests
    assert first == second
    assert (first.operation_id, first.attempt, first.HasField("delay")) == (ID, 1, False)


@pytest.mark.parametrize("answer", [Never(), AWAY], ids=["no answer", "unavailable"])
async def test_release_at_the_end_takes_a_bounded_time(monkeypatch, answer):
    """A program that ends does not wait for a service that is away."""
    monkeypatch.setattr(workers, "GIVE_BACK_TIMEOUT_S", 0.2)
    begun = asyncio.get_running_loop().time()
    async with talking(answer) as (milepost, _):
        with pytest.raises((TimeoutError, StoreUnavailable)):
            await milepost._give_back(ID, 1)
        assert asyncio.get_running_loop().time() - begun < 1 * slowdown()
