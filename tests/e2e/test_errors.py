"""Defects, deadlines and cancelled calls."""

import asyncio
from functools import partial
from typing import Any

import grpc
import psutil
import pytest
import sqlalchemy as sa
from google.api import field_behavior_pb2
from google.protobuf import duration_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId, new_operation_id
from milepost.storage.tables import operations
from tests.e2e.client import FUNCTION, Client
from tests.e2e.refusals import Refusal, refused
from tests.e2e.rpcs import RPCS, Rpc
from tests.waiting import eventually, until

SOON_S = 5.0
GET = "milepost.v1.OperationService/GetOperation"
CREATE = "milepost.v1.OperationService/CreateOperation"
PROGRESS = "milepost.v1.WorkerService/UpdateProgress"
MAX_TRIES = 20
LONG = duration_pb2.Duration(seconds=20)
NO_WORK = "errors.no-work"


def counted(service, method, code):
    """Return the number of calls of the method that ended with the code."""
    return service.metric("milepost_rpc_duration_seconds_count", method=method, code=code)


def running(service):
    """Return the number of running calls."""
    return service.metric("milepost_rpcs_running")


def open_files(service):
    """Return the number of files and sockets that the process has open."""
    return psutil.Process(service.process.pid).num_fds()


def becomes(value, expected):
    """Wait for the count of a call, which changes a little after its answer."""
    eventually(lambda: value() == expected, within=SOON_S, what=f"{expected}")


def test_defect_is_internal(any_service, alice, stored):
    """A defect is INTERNAL with a constant message and a trace id; only the log has the details."""
    operation = alice.create()
    mine = operations.c.id == operation.id
    stored.execute(sa.update(operations).where(mine).values(metadata="broken on purpose"))
    before = counted(any_service, GET, "INTERNAL")
    with refused(StatusCode.INTERNAL, "INTERNAL") as refusal:
        alice.get(operation.id)
    trace_id = refusal.facts["trace_id"]
    assert len(trace_id) == 32
    assert refusal.message == f"internal error, trace id {trace_id}"
    assert refusal.facts == {"trace_id": trace_id}
    line = any_service.logged(event="call failed", trace_id=trace_id)
    assert (line["level"], line["method"]) == ("error", GET)
    assert "JSONDecodeError" in line["exception"]
    becomes(lambda: counted(any_service, GET, "INTERNAL"), before + 1)


def required_fields(rpc: Rpc) -> set[str]:
    """Return the fields that the proto annotates as required; Google's has no annotations."""
    if rpc.is_google:
        return {rpc.id_field} if rpc.takes_id else set()
    annotation: Any = field_behavior_pb2.field_behavior
    return {
        field.name
        for field in rpc.request.DESCRIPTOR.fields
        if field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[annotation]
    }


@pytest.mark.parametrize(
    "rpc", [rpc for rpc in RPCS if rpc.shape != "stream_stream"], ids=lambda rpc: rpc.method
)
def test_empty_request_violates_the_required_fields(any_service, rpc):
    """The violations of an empty request are exactly the fields annotated as required."""
    roles = ("CALLER", "WORKER", "ADMIN")
    everyone = any_service.client("everyone", roles=roles, functions=("*",))
    violations: set[str] = set()
    try:
        everyone.send(rpc, rpc.request())
    except grpc.RpcError as error:
        refusal = Refusal()
        refusal.error = error
        if refusal.code is StatusCode.INVALID_ARGUMENT:
            violations = set(refusal.violations)
    assert violations == required_fields(rpc)


def test_refused_calls_are_counted_with_their_code(any_service, alice, worker):
    """The refusal of every interceptor is counted once, with the code that its caller got."""
    unknown = Client(any_service.channel, "unknown", frozenset(), "no key")
    missing = new_operation_id()
    operation = alice.create()
    for client, method, fields, code in (
        (unknown, "GetOperation", {}, StatusCode.UNAUTHENTICATED),
        (worker, "CreateOperation", {}, StatusCode.PERMISSION_DENIED),
        (alice, "GetOperation", {}, StatusCode.INVALID_ARGUMENT),
        (alice, "GetOperation", {"operation_id": missing}, StatusCode.NOT_FOUND),
        (
            alice,
            "CompleteOperation",
            {"operation_id": operation.id},
            StatusCode.FAILED_PRECONDITION,
        ),
        (
            alice,
            "StartOperation",
            {"operation_id": operation.id, "expected_revision": 9},
            StatusCode.ABORTED,
        ),
        (alice, "WaitOperation", {"operation_id": missing}, StatusCode.NOT_FOUND),
    ):
        (rpc,) = (rpc for rpc in RPCS if rpc.method == method)
        before = counted(any_service, rpc.name, code.name)
        others = any_service.metric("milepost_rpc_duration_seconds_count", method=rpc.name)
        with refused(code):
            client.call(method, **fields)
        becomes(partial(counted, any_service, rpc.name, code.name), before + 1)
        after = any_service.metric("milepost_rpc_duration_seconds_count", method=rpc.name)
        assert after == others + 1


async def test_cancelled_write_is_neither_lost_nor_undone(any_service, alice, stored):
    """A transition of a cancelled call is committed as a whole, and the call ends.

    The metric counts it as CANCELLED, and no task is left. A call that was still queued, because
    a sweep waited for the same lock before it, has no effect: then the test tries again.
    """
    operation = alice.create_in("PROCESSING")
    id_ = OperationId(operation.id)
    before = counted(any_service, PROGRESS, "CANCELLED")
    tries = 0
    while stored.operation(id_)["revision"] == operation.revision:
        tries += 1
        assert tries <= MAX_TRIES
        async with any_service.aio_channel() as channel:
            with stored.held(id_):
                call = alice.begin(channel, "UpdateProgress", operation_id=id_, progress=0.5)
                await until(lambda: running(any_service) == 1)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                await until(lambda: running(any_service) == 0)
                assert alice.get(id_) == operation
        # The batcher finishes this write only after the earlier transition.
        alice.create()
    assert stored.operation(id_)["progress"] == 0.5
    assert alice.transition("UpdateProgress", id_, progress=0.6).revision == operation.revision + 2
    becomes(lambda: counted(any_service, PROGRESS, "CANCELLED"), before + tries)


async def test_many_cancelled_calls_leave_nothing_behind(any_service, alice, stored):
    """After many calls cancelled at any moment no call runs, and no change is incomplete."""
    ids = [alice.create_in("PROCESSING").id for _ in range(10)]
    async with any_service.aio_channel() as channel:
        calls = [
            alice.begin(channel, "UpdateProgress", operation_id=id_, progress=0.5)
            for id_ in ids * 10
        ]
        for call in calls[::2]:
            call.cancel()
        answers = await asyncio.gather(*calls[1::2])
        calls += [alice.begin(channel, "CreateOperation", function=FUNCTION) for _ in range(50)]
        await calls[-50].code()
        for call in calls:
            call.cancel()
    becomes(lambda: running(any_service), 0)
    highest = {
        answer.operation.id: max(a.operation.revision for a in answers if a.operation.id == id_)
        for id_ in ids
        for answer in answers
        if answer.operation.id == id_
    }
    for id_, revision in highest.items():
        assert stored.operation(OperationId(id_))["revision"] >= revision
    assert alice.create().revision == 1


async def test_cancelled_waits_leave_nothing_behind(any_service, alice, worker):
    """Waits, watches and claims that are cancelled at any moment end in the service as well."""
    ids = [alice.create().id for _ in range(10)]
    opened = open_files(any_service)
    for pause_s in (0.0, 0.001, 0.01, 0.1):
        async with any_service.aio_channel() as channel:
            calls = [
                call
                for id_ in ids * 5
                for call in (
                    alice.begin(channel, "WaitOperation", operation_id=id_, timeout=LONG),
                    alice.watch(channel, id_),
                    worker.begin(channel, "ClaimOperations", functions=[NO_WORK], timeout=LONG),
                )
            ]
            await asyncio.sleep(pause_s)
            for call in calls:
                call.cancel()
        becomes(lambda: running(any_service), 0)
    # A pool may have grown by a few connections; a leak is one for each of 600 calls.
    eventually(
        lambda: open_files(any_service) < opened + 20, within=SOON_S, what="sockets are closed"
    )
    assert alice.get(ids[0]).revision == 1


async def test_deadline_is_returned_and_counted(any_service, alice, stored):
    """A call past its deadline is DEADLINE_EXCEEDED for its caller and in the metric.

    On a busy machine a call may arrive too late or never: then the test makes another one.
    """
    operation = alice.create_in("PROCESSING")
    id_ = OperationId(operation.id)
    before = counted(any_service, PROGRESS, "DEADLINE_EXCEEDED")
    (rpc,) = (rpc for rpc in RPCS if rpc.name == PROGRESS)
    tries = 0
    async with any_service.aio_channel() as channel:
        await channel.channel_ready()
        while counted(any_service, PROGRESS, "DEADLINE_EXCEEDED") == before:
            tries += 1
            assert tries <= MAX_TRIES
            with stored.held(id_):
                request = rpc.about(id_, progress=0.5)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await rpc.on(channel)(request, metadata=alice.metadata, timeout=0.2)
                assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED
                await until(lambda: running(any_service) == 0)
    assert counted(any_service, PROGRESS, "DEADLINE_EXCEEDED") <= before + tries


async def test_cancelled_create_is_whole(any_service, alice, stored):
    """A create that was cancelled at any moment can be repeated, and is made once."""
    async with any_service.aio_channel() as channel:
        for turns in range(0, 40, 4):
            call = alice.begin(channel, "CreateOperation", function=FUNCTION, request_id=f"{turns}")
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            first = alice.create(request_id=f"{turns}")
            assert alice.create(request_id=f"{turns}") == first
            events = stored.events(OperationId(first.id))
            assert [event["type"] for event in events] == ["operation.created"]
    assert len(alice.call("ListOperations").operations) == 10
