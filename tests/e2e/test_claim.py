"""ClaimOperations over the wire: a long poll for leased work."""

import math
import time

import pytest
from google.protobuf import duration_pb2
from grpc import StatusCode

from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.refusals import refused
from tests.e2e.rpcs import RPCS
from tests.machine import slowdown
from tests.waiting import eventually


@pytest.fixture
def function(alice):
    """Return the name of a function that no other test uses."""
    return f"claims.{alice.subject}"


def seconds(value):
    """Return a duration."""
    return duration_pb2.Duration(seconds=value)


def claim(client, function, **fields):
    """Return the operations of a claim that does not wait."""
    asked = {"functions": [function], "timeout": seconds(0), **fields}
    return list(client.call("ClaimOperations", **asked).operations)


def test_claimed_work_is_done(alice, worker, function):
    """A worker claims an operation, reports progress with its attempt, and completes it."""
    created = alice.create(function=function)
    (claimed,) = claim(worker, function, worker="w-1")
    assert (claimed.id, claimed.attempt, claimed.worker) == (created.id, 1, "w-1")
    assert claimed.status == pb.OPERATION_STATUS_PROCESSING
    assert claimed.lease_expire_time.ToDatetime() > claimed.start_time.ToDatetime()
    renewed = worker.transition("UpdateProgress", claimed.id, attempt=1, progress=0.5)
    assert renewed.lease_expire_time.ToDatetime() > claimed.lease_expire_time.ToDatetime()
    done = worker.transition("CompleteOperation", claimed.id, attempt=1)
    assert not done.HasField("lease_expire_time")
    assert claim(worker, function) == []


@pytest.mark.parametrize(("asked", "given"), [(None, 30), (1, 5), (7200, 3600), (60, 60)])
def test_lease_is_clamped(alice, worker, function, asked, given):
    """The lease is the one asked for within 5 s and 1 h, and 30 s by default."""
    alice.create(function=function)
    fields = {} if asked is None else {"lease": seconds(asked)}
    (claimed,) = claim(worker, function, **fields)
    lease = claimed.lease_expire_time.ToDatetime() - claimed.start_time.ToDatetime()
    assert lease.total_seconds() == given


def test_claim_waits_for_work(any_service, alice, worker, function):
    """A claim that finds nothing is answered as soon as there is work, within 100 ms here."""
    waiting = worker.future("ClaimOperations", functions=[function])
    eventually(
        lambda: any_service.metric("milepost_rpcs_running") >= 1, within=5, what="the claim waits"
    )
    created = alice.create(function=function)
    began = time.monotonic()
    (claimed,) = waiting.result().operations
    assert time.monotonic() - began < 0.1 * slowdown()
    assert claimed.id == created.id


def test_claim_ends_at_its_timeout(worker, function):
    """A claim that finds no work returns an empty list at its timeout."""
    began = time.monotonic()
    assert claim(worker, function, timeout=seconds(1)) == []
    assert 0.9 < time.monotonic() - began < 2 * slowdown()


def test_claim_ends_before_its_deadline(any_service, worker, function):
    """A claim without a timeout returns before the deadline of the call."""
    (rpc,) = (rpc for rpc in RPCS if rpc.method == "ClaimOperations")
    call = rpc.on(any_service.channel)
    request = rpc.request(functions=[function])

    def ends_in_time() -> bool:
        waiting = call.future(request, metadata=worker.metadata, timeout=3.0)
        if waiting.code() is StatusCode.DEADLINE_EXCEEDED:
            return False
        assert not waiting.result().operations
        return True

    # A busy machine may hold up an answer for longer than the service leaves it.
    assert any(ends_in_time() for _ in range(math.ceil(slowdown())))


def test_one_operation_for_many_waiters(alice, worker, function):
    """New operations go to as many waiting claims, one operation each."""
    waiting = [
        worker.future("ClaimOperations", functions=[function], timeout=seconds(2)) for _ in range(8)
    ]
    created = [alice.create(function=function).id for _ in range(3)]
    claimed = [operation.id for call in waiting for operation in call.result().operations]
    assert sorted(claimed) == sorted(created)


def test_function_that_is_not_granted(any_service, function):
    """A claim of a function that is not granted is refused, and the refusal names it."""
    worker = any_service.client("wally", roles=("WORKER",), functions=("video.*", "audio.cut"))
    assert claim(worker, "video.x", functions=["video.x", "audio.cut"]) == []
    for foreign in (function, "audio.cut2", "videox", "video"):
        with refused(StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED") as refusal:
            claim(worker, foreign, functions=["video.x", foreign])
        assert refusal.facts == {"role": "WORKER", "function": foreign}


def test_malformed_claim(worker):
    """A malformed claim is refused with every wrong field."""
    with refused(StatusCode.INVALID_ARGUMENT) as refusal:
        worker.call(
            "ClaimOperations",
            functions=["a", " ", "x" * 256, "a\nb"],
            max_operations=101,
            timeout=seconds(-1),
            worker="",
        )
    assert set(refusal.violations) == {
        "functions[1]",
        "functions[2]",
        "functions[3]",
        "max_operations",
        "timeout",
        "worker",
    }
    for functions in ([], [f"f-{n}" for n in range(101)]):
        with refused(StatusCode.INVALID_ARGUMENT) as refusal:
            worker.call("ClaimOperations", functions=functions)
        assert set(refusal.violations) == {"functions"}


def test_cancelled_claim_takes_no_work(any_service, alice, worker, function):
    """Work created after a waiting claim was cancelled goes to another claim."""
    waiting = worker.future("ClaimOperations", functions=[function])
    eventually(
        lambda: any_service.metric("milepost_rpcs_running") >= 1, within=5, what="the claim waits"
    )
    waiting.cancel()
    eventually(
        lambda: any_service.metric("milepost_rpcs_running") == 0, within=5, what="no claim waits"
    )
    created = alice.create(function=function)
    assert [operation.id for operation in claim(worker, function)] == [created.id]
