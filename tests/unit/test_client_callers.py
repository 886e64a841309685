"""The verbs of callers and workers: what they send, and what they make of the answer."""

from datetime import UTC, datetime, timedelta

import pytest

from milepost_client import OperationError, Status
from milepost_client.convert import from_any, from_struct
from milepost_client.gen.milepost.v1 import operation_pb2
from milepost_client.gen.milepost.v1 import operation_service_pb2 as pb
from milepost_client.gen.milepost.v1 import worker_service_pb2 as worker_pb
from tests.unit.client_script import ID, operation, page, talking


async def test_create_sends_all_it_was_given():
    """Every argument of create is a field of the request."""
    async with talking(pb.CreateOperationResponse(operation=operation())) as (milepost, service):
        created = await milepost.create(
            "video.transcode",
            version="2",
            metadata={"source": "in.mov"},
            ttl=timedelta(hours=1),
            retry_after=2,
            max_attempts=1,
            callback_url="https://example.com/hook",
            callback_events=["operation.completed"],
            original_request_id="web-1",
            request_id="r1",
        )
    (request,) = service.requests
    assert {field.name for field, _ in request.ListFields()} == set(
        request.DESCRIPTOR.fields_by_name
    )
    assert from_struct(request.metadata) == {"source": "in.mov"}
    assert (request.ttl.seconds, request.retry_after.seconds) == (3600, 2)
    assert (created.id, created.replayed) == (ID, False)


async def test_create_sends_nothing_it_was_not_given():
    """What create was not given stays absent, except the request_id, so that defaults apply."""
    async with talking(pb.CreateOperationResponse(operation=operation())) as (milepost, service):
        await milepost.create("f")
    (request,) = service.requests
    assert {field.name for field, _ in request.ListFields()} == {"function", "request_id"}


async def test_replay_is_told():
    """An answer that an earlier call had brought about says so."""
    answer = pb.CreateOperationResponse(operation=operation("COMPLETED"), replayed=True)
    async with talking(answer) as (milepost, _):
        assert (await milepost.create("f", request_id="r1")).replayed


async def test_list_follows_all_pages():
    """Listing goes on until a page is the last, with the same filters."""
    async with talking(page("a", then="t1"), page(then="t2"), page("b", "c")) as (
        milepost,
        service,
    ):
        found = [found.id async for found in milepost.list(function="f")]
    assert found == ["a", "b", "c"]
    assert [request.page_token for request in service.requests] == ["", "t1", "t2"]
    assert {request.function for request in service.requests} == {"f"}


async def test_list_fetches_no_page_before_it_is_needed():
    """A page is fetched when the one before it is used up."""
    async with talking(page("a", then="t1")) as (milepost, service):
        assert (await anext(milepost.list())).id == "a"
    assert len(service.asked) == 1


async def test_list_sends_all_filters():
    """Every filter is a field of the request."""
    async with talking(page()) as (milepost, service):
        found = milepost.list(
            statuses=[Status.PENDING, Status.FAILED],
            function="f",
            created_from=datetime(2026, 1, 1, tzinfo=UTC),
            created_before=datetime(2026, 2, 1, tzinfo=UTC),
            owner="bob",
            full=True,
            page_size=7,
        )
        assert [operation async for operation in found] == []
    (request,) = service.requests
    absent = set(request.DESCRIPTOR.fields_by_name) - {
        field.name for field, _ in request.ListFields()
    }
    assert absent == {"page_token"}
    assert request.view == operation_pb2.OPERATION_VIEW_FULL
    assert list(request.statuses) == [1, 4]


async def test_conditions_are_sent_as_given():
    """Expected revision, attempt, reason and message travel as they are."""
    done = operation("COMPLETED")
    script = [
        pb.CancelOperationResponse(operation=done),
        pb.DeleteOperationResponse(),
        worker_pb.StartOperationResponse(operation=done),
        worker_pb.UpdateProgressResponse(operation=done),
        worker_pb.CompleteOperationResponse(operation=done),
        worker_pb.FailOperationResponse(operation=done),
        worker_pb.ReleaseOperationResponse(operation=done),
    ]
    async with talking(*script) as (milepost, service):
        await milepost.cancel(ID, "changed my mind", expected_revision=7)
        await milepost.delete(ID, expected_revision=7)
        await milepost.start(ID, worker="w1", progress=0.1, expected_revision=7)
        await milepost.update_progress(ID, 0.5, "half", attempt=2, expected_revision=7)
        await milepost.complete(ID, {"frames": 7}, attempt=2, expected_revision=7)
        await milepost.fail(ID, [OperationError("E", "e")], attempt=2, expected_revision=7)
        await milepost.release(ID, delay=1.5, reason="r", attempt=2, expected_revision=7)
    for request in service.requests:
        assert {field.name for field, _ in request.ListFields()} == set(
            request.DESCRIPTOR.fields_by_name
        )
        assert (request.operation_id, request.expected_revision) == (ID, 7)
    assert service.requests[0].reason == "changed my mind"
    assert from_any(service.requests[4].result) == {"frames": 7}
    assert service.requests[6].delay.ToTimedelta() == timedelta(seconds=1.5)


@pytest.mark.parametrize("progress", [None, 0.0])
async def test_progress_of_zero_is_not_no_progress(progress):
    """Progress that is not given stays absent; zero is sent."""
    answer = worker_pb.UpdateProgressResponse(operation=operation("PROCESSING"))
    async with talking(answer) as (milepost, service):
        await milepost.update_progress(ID, progress)
    assert service.requests[0].HasField("progress") is (progress is not None)
