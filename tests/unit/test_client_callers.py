"""The verbs of callers and workers: what they send, and what they make of the answer."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import timestamp_pb2

from milepost_client import OperationError, OperationEvent, Status
from milepost_client.convert import from_any, from_struct
from milepost_client.gen.milepost.v1 import operation_pb2
from milepost_client.gen.milepost.v1 import operation_service_pb2 as pb
from milepost_client.gen.milepost.v1 import worker_service_pb2 as worker_pb
from tests.unit.client_script import ID, operation, page, talking, unavailable


async def test_create_sends_all_it_was_given():
    """Every argument of create is a field of the request."""
    async with talking(pb.CreateOperationResponse(operation=operation())) as (milepost, service):
        created = await milepost.create(
            "video.transcode",
            version="2",
            metadata={"source": "in.mov"},
            ttl=timedelta(hours=1),
            retry_after=2,
            schedule_time=datetime(2026, 12, 1, tzinfo=UTC),
            priority=7,
            unique_key="nightly",
            unique_key_policy="refuse",
            max_attempts=1,
            initial_backoff=2,
            backoff_multiplier=1.5,
            max_backoff=timedelta(minutes=1),
            queue_timeout=30,
            run_timeout=60,
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
    assert request.schedule_time.ToDatetime(UTC) == datetime(2026, 12, 1, tzinfo=UTC)
    assert request.unique_key_policy == pb.UNIQUE_KEY_POLICY_REFUSE
    policy = request.retry_policy
    assert (policy.initial_backoff.seconds, policy.backoff_multiplier) == (2, 1.5)
    assert (policy.max_backoff.seconds, request.queue_timeout.seconds) == (60, 30)
    assert (request.priority, request.run_timeout.seconds) == (7, 60)
    assert (created.id, created.replayed, created.joined) == (ID, False, False)


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


async def test_joined_operation_is_told():
    """A create that met the unique key of an active operation returns that one, and says so."""
    answer = pb.CreateOperationResponse(operation=operation("PROCESSING"), joined=True)
    async with talking(answer) as (milepost, service):
        assert (await milepost.create("f", unique_key="k", unique_key_policy="join")).joined
    assert service.requests[0].unique_key_policy == pb.UNIQUE_KEY_POLICY_JOIN


async def test_unknown_policy_is_refused():
    """A policy that the service does not know is refused before it is sent."""
    async with talking() as (milepost, service):
        with pytest.raises(ValueError, match="REPLACE"):
            await milepost.create("f", unique_key="k", unique_key_policy="replace")  # type: ignore[arg-type]
    assert service.asked == []


async def test_history_follows_all_pages():
    """The history is read page by page, oldest first, with the errors of every attempt."""
    time = timestamp_pb2.Timestamp(seconds=1_000_000)
    error = operation_pb2.OperationError(code="E", message="e")
    first = pb.OperationEvent(
        revision=1, type="operation.created", transition="create", time=time, actor="alice"
    )
    second = pb.OperationEvent(
        revision=3,
        type="operation.retrying",
        transition="retry",
        time=time,
        actor="wally",
        attempt=1,
        worker="w1",
        reason="r",
        errors=[error],
    )
    script = [
        pb.ListEventsResponse(events=[first], next_page_token="t1"),  # noqa: S106
        pb.ListEventsResponse(events=[second]),
    ]
    async with talking(unavailable(), *script) as (milepost, service):
        events = [event async for event in milepost.events(ID, page_size=1)]
    assert set(type(events[0]).__slots__) == set(first.DESCRIPTOR.fields_by_name)
    assert (events[0].worker, events[0].reason, events[0].errors) == (None, None, ())
    assert events[1] == OperationEvent(
        revision=3,
        type="operation.retrying",
        transition="retry",
        time=datetime(1970, 1, 12, 13, 46, 40, tzinfo=UTC),
        actor="wally",
        attempt=1,
        worker="w1",
        reason="r",
        errors=(OperationError("E", "e"),),
    )
    assert [request.page_token for request in service.requests] == ["", "", "t1"]
    assert {request.operation_id for request in service.requests} == {ID}


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
        worker_pb.AcknowledgeCancellationResponse(operation=done),
    ]
    async with talking(*script) as (milepost, service):
        await milepost.cancel(ID, "changed my mind", grace=30, expected_revision=7)
        await milepost.delete(ID, expected_revision=7)
        await milepost.start(ID, worker="w1", progress=0.1, expected_revision=7)
        await milepost.update_progress(
            ID, 0.5, "half", checkpoint=[7], attempt=2, expected_revision=7
        )
        await milepost.complete(ID, {"frames": 7}, attempt=2, expected_revision=7)
        await milepost.fail(
            ID,
            [OperationError("E", "e")],
            retryable=True,
            retry_delay=9,
            attempt=2,
            expected_revision=7,
        )
        await milepost.release(ID, delay=1.5, reason="r", attempt=2, expected_revision=7)
        await milepost.acknowledge_cancellation(ID, attempt=2, expected_revision=7)
    for request in service.requests:
        assert {field.name for field, _ in request.ListFields()} == set(
            request.DESCRIPTOR.fields_by_name
        )
        assert (request.operation_id, request.expected_revision) == (ID, 7)
    assert service.requests[0].reason == "changed my mind"
    assert service.requests[0].grace.seconds == 30
    assert from_any(service.requests[3].checkpoint) == [7]
    assert from_any(service.requests[4].result) == {"frames": 7}
    assert service.requests[5].retry_delay.seconds == 9
    assert service.requests[6].delay.ToTimedelta() == timedelta(seconds=1.5)


@pytest.mark.parametrize("progress", [None, 0.0])
async def test_progress_of_zero_is_not_no_progress(progress):
    """Progress that is not given stays absent; zero is sent."""
    answer = worker_pb.UpdateProgressResponse(operation=operation("PROCESSING"))
    async with talking(answer) as (milepost, service):
        await milepost.update_progress(ID, progress)
    assert service.requests[0].HasField("progress") is (progress is not None)
