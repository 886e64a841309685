"""ReleaseOperation over the wire: a worker gives an operation back, at once or after a delay."""

import time

import pytest
from google.protobuf import duration_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.refusals import refused
from tests.machine import slowdown
from tests.waiting import eventually

HOUR_S = 3_600


def seconds(value):
    """Return a duration."""
    return duration_pb2.Duration(seconds=int(value), nanos=round(value % 1 * 10**9))


def claimed(alice, worker, function):
    """Return an operation of Alice that the worker has claimed."""
    alice.create(function=function)
    return claim(worker, function)


def claim(worker, function):
    """Return the operation that a claim without a wait finds."""
    (operation,) = worker.call(
        "ClaimOperations", functions=[function], timeout=seconds(0)
    ).operations
    return operation


def waiting(any_service, worker, function):
    """Return a claim that waits for work."""
    future = worker.future("ClaimOperations", functions=[function])
    eventually(
        lambda: any_service.metric("milepost_rpcs_running") >= 1, within=5, what="the claim waits"
    )
    return future


def test_released_operation_goes_to_a_waiting_worker(any_service, alice, worker, function, stored):
    """A release without a delay wakes a waiting claim at once, and is no failed attempt."""
    operation = claimed(alice, worker, function)
    worker.transition("UpdateProgress", operation.id, attempt=1, progress=0.5, message="half")
    future = waiting(any_service, worker, function)
    begun = time.monotonic()
    released = worker.transition("ReleaseOperation", operation.id, attempt=1, reason="shutdown")
    (again,) = future.result().operations
    assert time.monotonic() - begun < 1 * slowdown()
    assert released.status == pb.OPERATION_STATUS_PENDING
    assert not released.HasField("progress")
    assert released.progress_message == "half"
    assert not released.HasField("next_attempt_time")
    assert (again.id, again.attempt, again.failed_attempts) == (operation.id, 2, 0)
    assert not again.HasField("next_attempt_time")
    event = stored.events(OperationId(operation.id))[-2]
    assert (event["type"], event["actor"]) == ("operation.released", worker.subject)
    assert event["reason"] == "shutdown"


def test_delayed_operation_wakes_a_waiting_worker_when_it_falls_due(
    any_service, alice, worker, function
):
    """A delayed operation reaches a waiting claim within 100 ms of falling due, not before."""
    operation = claimed(alice, worker, function)
    future = waiting(any_service, worker, function)
    released = worker.transition("ReleaseOperation", operation.id, attempt=1, delay=seconds(0.8))
    (again,) = future.result().operations
    late = again.start_time.ToDatetime() - released.next_attempt_time.ToDatetime()
    assert again.id == operation.id
    assert 0 <= late.total_seconds() < 0.1 * slowdown()


@pytest.mark.parametrize(
    ("asked", "given"), [(-5, 0), (0, 0), (60, 60), (HOUR_S, HOUR_S), (2 * HOUR_S, HOUR_S)]
)
def test_delay_is_clamped(alice, worker, function, asked, given):
    """The delay of a release is the one asked for within 0 and 1 h."""
    operation = claimed(alice, worker, function)
    released = worker.transition("ReleaseOperation", operation.id, delay=seconds(asked))
    assert released.HasField("next_attempt_time") == bool(given)
    if given:
        delay = released.next_attempt_time.ToDatetime() - operation.start_time.ToDatetime()
        assert given <= delay.total_seconds() < given + 10


def test_released_attempt_is_over(alice, worker, function):
    """After a release, every write of the attempt is ABORTED as stale."""
    operation = claimed(alice, worker, function)
    worker.transition("ReleaseOperation", operation.id, attempt=1)
    for _ in range(2):
        for method in ("ReleaseOperation", "CompleteOperation", "UpdateProgress"):
            with refused(StatusCode.ABORTED, "STALE_ATTEMPT"):
                worker.transition(method, operation.id, attempt=1)
        if alice.get(operation.id).status == pb.OPERATION_STATUS_PENDING:
            assert claim(worker, function).attempt == 2


def test_started_operation_is_released_by_its_owner(alice):
    """The owner gives back an operation that it has started, which has no lease."""
    operation = alice.create_in("PROCESSING")
    released = alice.transition("ReleaseOperation", operation.id)
    assert (released.status, released.attempt) == (pb.OPERATION_STATUS_PENDING, 1)
    assert alice.transition("StartOperation", operation.id).attempt == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("reason", " "), ("reason", "x" * 1_001), ("delay", duration_pb2.Duration(nanos=-(2**31)))],
    ids=["blank reason", "long reason", "malformed delay"],
)
def test_malformed_release_is_refused(alice, field, value):
    """A malformed field is named, and nothing is released."""
    operation = alice.create_in("PROCESSING")
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.transition("ReleaseOperation", operation.id, **{field: value})
    assert set(refusal.violations) == {field}
    assert alice.get(operation.id) == operation
