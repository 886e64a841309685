"""Failed attempts over the wire: retries, checkpoints, requested cancels, unique keys, events."""

import pytest
from google.protobuf import any_pb2, duration_pb2, timestamp_pb2, wrappers_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId
from milepost.gen.milepost.v1 import operation_pb2 as pb
from milepost.gen.milepost.v1 import operation_service_pb2 as service_pb
from tests.e2e.refusals import refused
from tests.e2e.rpcs import BROKEN
from tests.e2e.test_release import claim, claimed, seconds

GRACE = duration_pb2.Duration(seconds=60)
AT_ONCE = pb.RetryPolicy(initial_backoff=duration_pb2.Duration())
DAY_S = 86_400


def packed(value: bytes) -> any_pb2.Any:
    """Return a packed message."""
    message = any_pb2.Any()
    message.Pack(wrappers_pb2.BytesValue(value=value))
    return message


def events(client, operation, **fields):
    """Return all events of an operation, and the number of pages."""
    found, pages, token = [], 0, ""
    while True:
        page = client.call("ListEvents", operation_id=operation.id, page_token=token, **fields)
        found += page.events
        pages += 1
        if not (token := page.next_page_token):
            return found, pages


def test_function_that_fails_twice_and_then_works(alice, worker, function):
    """The operation ends COMPLETED, with two errors in its history and three attempts."""
    alice.create(function=function, retry_policy=AT_ONCE)
    for attempt in (1, 2):
        operation = claim(worker, function)
        assert operation.attempt == attempt
        error = pb.OperationError(code=f"BUSY_{attempt}", message="try again")
        failed = worker.transition(
            "FailOperation", operation.id, attempt=attempt, errors=[error], retryable=True
        )
        assert (failed.status, failed.failed_attempts) == (pb.OPERATION_STATUS_PENDING, attempt)
    operation = claim(worker, function)
    worker.transition("CompleteOperation", operation.id, attempt=3)
    assert alice.get(operation.id).attempt == 3
    found, pages = events(alice, operation, page_size=3)
    assert pages == 3
    assert [event.transition for event in found] == [
        "create", "claim", "retry", "claim", "retry", "claim", "complete"
    ]  # fmt: skip
    assert [event.attempt for event in found] == [0, 1, 1, 2, 2, 3, 3]
    assert [error.code for event in found for error in event.errors] == ["BUSY_1", "BUSY_2"]
    assert {event.actor for event in found[1:]} == {worker.subject}
    assert [event.revision for event in found] == list(range(1, 8))


def test_last_failure_is_logged_as_what_happened(any_service, alice, worker, function):
    """The audit log and the metric name the transition that happened instead."""
    before = any_service.metric("milepost_transitions_total", transition="fail")
    alice.create(function=function, max_attempts=1)
    operation = claim(worker, function)
    failed = worker.transition("FailOperation", operation.id, retryable=True, errors=[BROKEN])
    assert (failed.status, failed.failed_attempts) == (pb.OPERATION_STATUS_FAILED, 1)
    assert any_service.logged(operation_id=operation.id, status="FAILED")["transition"] == "fail"
    assert any_service.metric("milepost_transitions_total", transition="fail") > before


def test_checkpoint_goes_to_the_next_attempt(alice, worker, function):
    """The claim of the next attempt has the last checkpoint, and the end drops it."""
    operation = claimed(alice, worker, function)
    worker.transition("UpdateProgress", operation.id, checkpoint=packed(b"one"))
    worker.transition("UpdateProgress", operation.id, progress=0.5)
    assert alice.get(operation.id).checkpoint == packed(b"one")
    worker.transition("ReleaseOperation", operation.id)
    again = claim(worker, function)
    assert again.checkpoint == packed(b"one")
    worker.transition("CompleteOperation", again.id)
    assert not alice.get(operation.id).HasField("checkpoint")


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_size_of_a_checkpoint(alice, size):
    """A checkpoint of 65,536 bytes is stored, and one more byte is refused."""
    operation = alice.create_in("PROCESSING")
    checkpoint = any_pb2.Any(type_url="x/y", value=b"x" * size)
    if size == 65_536:
        alice.transition("UpdateProgress", operation.id, checkpoint=checkpoint)
        assert alice.get(operation.id).checkpoint == checkpoint
        return
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition("UpdateProgress", operation.id, checkpoint=checkpoint)
    assert set(refusal.violations) == {"checkpoint"}


def test_requested_cancel_has_a_receipt(alice, worker, function):
    """The owner sees the request, its delivery and the acknowledgement, with their times."""
    operation = claimed(alice, worker, function)
    asked = alice.transition("CancelOperation", operation.id, grace=GRACE, reason="too slow")
    assert (asked.status, asked.cancel_reason) == (pb.OPERATION_STATUS_PROCESSING, "too slow")
    assert not asked.HasField("cancel_delivered_time")
    told = worker.transition("UpdateProgress", operation.id, attempt=1)
    assert told.cancel_request_time == asked.cancel_request_time
    assert told.HasField("cancel_delivered_time")
    worker.transition("AcknowledgeCancellation", operation.id, attempt=1)
    ended = alice.get(operation.id)
    assert ended.status == pb.OPERATION_STATUS_CANCELLED
    assert ended.cancel_delivered_time == told.cancel_delivered_time
    found, _ = events(alice, operation)
    assert [(event.transition, event.actor) for event in found[2:]] == [
        ("request_cancel", alice.subject),
        ("acknowledge", worker.subject),
    ]


@pytest.mark.parametrize(("asked", "given"), [(7_200, 3_600), (3_600, 3_600), (1, 1)])
def test_grace_is_clamped(alice, asked, given):
    """The grace is the one asked for, up to 1 h."""
    operation = alice.create_in("PROCESSING")
    found = alice.transition("CancelOperation", operation.id, grace=seconds(asked))
    grace = found.cancel_expire_time.ToDatetime() - found.cancel_request_time.ToDatetime()
    assert abs(grace.total_seconds() - given) < 0.1


@pytest.mark.parametrize("asked", [0, -5])
def test_no_grace_cancels_at_once(alice, asked):
    """A grace of zero or less means a cancel at once."""
    operation = alice.create_in("PROCESSING")
    found = alice.transition("CancelOperation", operation.id, grace=seconds(asked))
    assert found.status == pb.OPERATION_STATUS_CANCELLED


def test_requested_cancel_of_a_pending_operation_is_logged_as_a_cancel(any_service, alice):
    """Without a worker the grace is not needed: the audit log names the cancel."""
    operation = alice.create()
    found = alice.transition("CancelOperation", operation.id, grace=GRACE)
    assert found.status == pb.OPERATION_STATUS_CANCELLED
    line = any_service.logged(operation_id=operation.id, status="CANCELLED")
    assert line["transition"] == "cancel"


def test_create_with_a_unique_key_joins(alice):
    """A second create with the key joins, or is refused if it asks for that."""
    first = alice.call("CreateOperation", function="f", unique_key="nightly")
    second = alice.call("CreateOperation", function="f", unique_key="nightly")
    assert (first.joined, second.joined, second.replayed) == (False, True, False)
    assert second.operation.id == first.operation.id
    with refused(StatusCode.ALREADY_EXISTS, "UNIQUE_KEY_TAKEN") as refusal:
        alice.create(unique_key="nightly", unique_key_policy=service_pb.UNIQUE_KEY_POLICY_REFUSE)
    assert refusal.facts["operation_id"] == first.operation.id


def test_longest_unique_key_is_refused_in_full(alice):
    """The refusal with the longest key of the largest characters reaches the caller."""
    key = "\N{ROCKET}" * 255
    alice.create(unique_key=key)
    with refused(StatusCode.ALREADY_EXISTS, "UNIQUE_KEY_TAKEN"):
        alice.create(unique_key=key, unique_key_policy=service_pb.UNIQUE_KEY_POLICY_REFUSE)


@pytest.mark.parametrize(
    ("fields", "violated"),
    [
        ({"priority": 10}, "priority"),
        ({"unique_key": ""}, "unique_key"),
        ({"unique_key": "x" * 256}, "unique_key"),
        ({"unique_key": "a\tb"}, "unique_key"),
        (
            {"retry_policy": pb.RetryPolicy(backoff_multiplier=float("nan"))},
            "retry_policy.backoff_multiplier",
        ),
    ],
    ids=["priority", "empty key", "long key", "control character", "multiplier"],
)
def test_malformed_create_is_refused(alice, fields, violated):
    """A malformed field of a create is named."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(**fields)
    assert set(refusal.violations) == {violated}


def test_schedule_is_bounded(alice, stored):
    """An operation is scheduled up to 30 days ahead, and its ttl counts from that time on."""
    now = alice.create().create_time.seconds
    ahead = timestamp_pb2.Timestamp(seconds=now + 29 * DAY_S)
    scheduled = alice.create(schedule_time=ahead, ttl=seconds(3_600))
    assert scheduled.next_attempt_time == scheduled.schedule_time == ahead
    assert scheduled.expire_time.seconds == ahead.seconds + 3_600
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(schedule_time=timestamp_pb2.Timestamp(seconds=now + 31 * DAY_S))
    assert set(refusal.violations) == {"schedule_time"}
    assert stored.operation(OperationId(scheduled.id))["status"] == "PENDING"


def test_delay_of_a_final_failure_is_refused(alice):
    """Only a retryable failure has a delay."""
    operation = alice.create_in("PROCESSING")
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition("FailOperation", operation.id, retry_delay=seconds(1), errors=[BROKEN])
    assert set(refusal.violations) == {"retry_delay"}


def test_token_of_a_page_of_events_is_for_one_operation_and_caller(any_service, alice):
    """A page token is refused for another operation, and to another caller."""
    mine, other = alice.create_in("COMPLETED"), alice.create_in("COMPLETED")
    token = alice.call("ListEvents", operation_id=mine.id, page_size=1).next_page_token
    root = any_service.client("root", roles=("ADMIN",))
    assert len(root.call("ListEvents", operation_id=mine.id).events) == 3
    for client, operation in ((alice, other), (root, mine)):
        with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"):
            client.call("ListEvents", operation_id=operation.id, page_token=token)


def test_large_events_are_spread_over_pages(alice, worker, function):
    """A page of events has what fits into 3 MiB, and every event is on one of them."""
    operation = alice.create(function=function, retry_policy=AT_ONCE, max_attempts=9)
    error = pb.OperationError(code="LARGE", message="x" * 1_000_000)
    for attempt in range(1, 6):
        assert claim(worker, function).attempt == attempt
        worker.transition("FailOperation", operation.id, errors=[error], retryable=True)
    page = alice.call("ListEvents", operation_id=operation.id)
    assert page.ByteSize() <= 3 << 20
    assert page.next_page_token
    found, pages = events(alice, operation)
    assert pages > 1
    assert [event.revision for event in found] == list(range(1, 12))
