"""Pages of a list that the rate limit delays."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from milepost_client import QuotaExceeded, RateLimited
from milepost_client.gen.milepost.v1 import operation_service_pb2 as pb
from tests.unit.client_script import ID, Refusal, page, talking
from tests.waiting import until


def limited(retry_after_s: float) -> Refusal:
    """Return the refusal of a rate limit."""
    retry_after = timedelta(seconds=retry_after_s)
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after=retry_after)


def events(revision: int, then: str = "") -> pb.ListEventsResponse:
    """Return a page with one event."""
    event = pb.OperationEvent(revision=revision)
    return pb.ListEventsResponse(events=[event], next_page_token=then)


async def test_events_wait_for_the_rate_limit():
    """A later page is asked for again after the pause that the service asks for."""
    script = events(1, then="t1"), limited(0.2), limited(0), events(2)
    async with talking(*script) as (milepost, service):
        assert [event.revision async for event in milepost.events(ID)] == [1, 2]
    assert [request.page_token for request in service.requests] == ["", "t1", "t1", "t1"]
    assert service.asked[2].time - service.asked[1].time >= 0.2


async def test_quota_is_raised_at_once():
    """A later page waits for no other limit."""
    quota = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    async with talking(events(1, then="t1"), quota) as (milepost, service):
        history = milepost.events(ID)
        await anext(history)
        with pytest.raises(QuotaExceeded):
            await anext(history)
    assert len(service.asked) == 2


async def test_page_is_given_up_after_five_minutes():
    """The pauses of one page together last at most 5 minutes."""
    script = page("a", then="t1"), limited(0.1), limited(299.9)
    async with talking(*script) as (milepost, service):
        operations = milepost.list()
        await anext(operations)
        with pytest.raises(RateLimited):
            await anext(operations)
    assert len(service.asked) == 3


async def test_cancelled_iteration_ends_the_pause():
    """A cancel during the pause ends the iteration at once."""
    async with talking(page("a", then="t1"), limited(60)) as (milepost, service):
        operations = milepost.list()
        await anext(operations)
        following = asyncio.ensure_future(anext(operations))
        await until(lambda: len(service.asked) == 2)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(following, 5)
    assert len(service.asked) == 2
