"""Claims of a `Worker`: paced by what the service asks for."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from milepost_client import PermissionDenied, Worker
from tests.unit.client_script import UNDECODABLE, Refusal, talking

PAUSE_S = 0.4
REFUSALS = {
    "limited": Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after=timedelta(seconds=PAUSE_S)
    ),
    "away": Refusal(
        grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", retry_after=timedelta(seconds=PAUSE_S)
    ),
    "broken": Refusal(grpc.StatusCode.UNKNOWN, retry_after=timedelta(seconds=PAUSE_S)),
}
DENIED = Refusal(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_refused_claim_is_repeated_after_the_pause_that_was_asked_for(refusal):
    """A worker claims again when RetryInfo allows it, and ends only after a final refusal."""
    async with talking(refusal, refusal, DENIED) as (milepost, service):
        with pytest.raises(PermissionDenied):
            await asyncio.wait_for(Worker(milepost, {"f": print}).run(), 10)
    first, second, third = (asked.time for asked in service.asked)
    assert min(second - first, third - second) >= PAUSE_S


async def test_worker_survives_a_claim_that_it_cannot_decode():
    """A worker goes on to claim after an answer that cannot be decoded."""
    async with talking(UNDECODABLE, UNDECODABLE, DENIED) as (milepost, service):
        with pytest.raises(PermissionDenied):
            await asyncio.wait_for(Worker(milepost, {"f": print}).run(), 10)
    assert service.methods == ["ClaimOperations"] * 3
