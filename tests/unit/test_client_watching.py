"""Watching an operation over connections that do not last."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from milepost_client import (
    MilepostError,
    OperationNotFound,
    RateLimited,
    RevisionAhead,
    SyncMilepost,
    Unavailable,
    UndecodableAnswer,
)
from tests.unit.client_script import (
    API_KEY,
    ID,
    UNDECODABLE,
    Never,
    Refusal,
    Streamed,
    changed,
    serving,
    talking,
    unavailable,
)

LIMITED = Refusal(
    grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after=timedelta(milliseconds=50)
)


async def test_changes_are_told_to_the_end():
    """A watch yields each operation it is told of, leaves out signs of life, and ends by itself."""
    async with talking(changed(1, 2, 5)) as (milepost, service):
        assert [operation.revision async for operation in milepost.watch(ID)] == [1, 2, 5]
    assert service.requests[0].operation_id == ID
    assert service.requests[0].after_revision == 0


@pytest.mark.parametrize("cut", [unavailable(), unavailable("DRAINING"), LIMITED])
async def test_watch_goes_on_after_a_cut(cut):
    """A watch that is cut comes back by itself and goes on after the last revision it was told."""
    script = (changed(7, then=cut), unavailable(), changed(then=cut), changed(8, 9))
    async with talking(*script) as (milepost, service):
        seen = [operation.revision async for operation in milepost.watch(ID, after_revision=4)]
    assert seen == [7, 8, 9]
    assert [request.after_revision for request in service.requests] == [4, 7, 7, 7]


async def test_outage_of_a_watch_is_logged_once(caplog):
    """A single cut, as of a drain, is not logged; an outage is, once."""
    cut = unavailable()
    script = (changed(1, then=cut), changed(2, then=cut), cut, cut, changed(3))
    async with talking(*script) as (milepost, _):
        assert [operation.revision async for operation in milepost.watch(ID)] == [1, 2, 3]
    [line] = caplog.messages
    assert line.startswith(f"the watch of {ID} is interrupted, and goes on later: ")


BROKEN = ("UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED", "DEADLINE_EXCEEDED")
REFUSED = [code for code in grpc.StatusCode if code.name not in {"OK", "UNAVAILABLE"}]


@pytest.mark.parametrize("name", [*BROKEN, "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"])
async def test_watch_goes_on_after_a_broken_stream(name):
    """A watch goes on after any end of its stream that is no answer of the service."""
    broken = Refusal(grpc.StatusCode[name])
    async with talking(changed(7, then=broken), broken, changed(8)) as (milepost, service):
        assert [operation.revision async for operation in milepost.watch(ID)] == [7, 8]
    assert [request.after_revision for request in service.requests] == [0, 7, 7]


@pytest.mark.parametrize("code", REFUSED)
async def test_refusal_of_the_service_ends_the_watch(code):
    """A watch ends with a refusal of the service, whatever its code; a limit only delays it."""
    refusal = Refusal(code, "A_NEW_REASON")
    async with talking(changed(7, then=refusal), changed(8)) as (milepost, service):
        watch = milepost.watch(ID)
        assert (await anext(watch)).revision == 7
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            assert (await anext(watch)).revision == 8
            return
        with pytest.raises(MilepostError) as caught:
            await anext(watch)
        assert caught.value.code is code
        assert len(service.asked) == 1


async def test_service_that_never_was_there_is_told():
    """A watch that cannot even begin within the deadline says so, and says limits at once."""
    async with talking(*[unavailable()] * 99, deadline=0.3) as (milepost, _):
        with pytest.raises(Unavailable):
            await anext(milepost.watch(ID))
    async with talking(LIMITED) as (milepost, _):
        with pytest.raises(RateLimited):
            await anext(milepost.watch(ID))


async def test_vanished_operation_ends_the_watch():
    """An operation that vanishes while it is watched ends the watch with its error."""
    gone = Refusal(grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND")
    async with talking(changed(1, then=gone)) as (milepost, _):
        watch = milepost.watch(ID)
        assert (await anext(watch)).revision == 1
        with pytest.raises(OperationNotFound):
            await anext(watch)


async def test_restored_database_ends_the_watch():
    """A watch that continues over a restored database ends with an error, not in silence."""
    behind = Refusal(grpc.StatusCode.OUT_OF_RANGE, "REVISION_AHEAD")
    async with talking(changed(7, then=unavailable()), behind) as (milepost, _):
        watch = milepost.watch(ID)
        assert (await anext(watch)).revision == 7
        with pytest.raises(RevisionAhead):
            await anext(watch)


async def test_watch_may_be_left():
    """Who leaves a watch halfway ends the call."""
    async with talking(changed(1, then=Never())) as (milepost, _):
        watch = milepost.watch(ID)
        assert (await anext(watch)).revision == 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.1)
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_watch_is_an_ordinary_iterator_too():
    """Without an event loop a watch is for an ordinary loop."""

    def use(address: str) -> list[int]:
        with SyncMilepost(address, api_key=API_KEY) as milepost:
            return [operation.revision for operation in milepost.watch(ID, 1)]

    async with serving(changed(2, then=unavailable()), changed(3)) as service:
        assert await asyncio.to_thread(use, service.address) == [2, 3]


@pytest.mark.parametrize("items", [(UNDECODABLE,), (*changed(1).items, UNDECODABLE)])
async def test_undecodable_item_ends_the_watch(items):
    """An item that cannot be decoded ends the watch with an error of the client."""
    async with talking(Streamed(items, Never())) as (milepost, _):
        with pytest.raises(UndecodableAnswer):
            [_ async for _ in milepost.watch(ID)]
