"""Calls of every kind through real proxies."""

import asyncio
import json
import secrets
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2

from milepost.gen.milepost.v1 import operation_pb2
from milepost.gen.milepost.v1 import worker_service_pb2 as worker_pb
from milepost_client import Status, Worker
from tests.e2e.client import Client
from tests.e2e.http.exchange import EventStream, Http, RawHttp
from tests.e2e.refusals import refused
from tests.e2e.rpcs import BY_METHOD
from tests.e2e.service import Service
from tests.waiting import eventually, until

KIB = 1024
MIB = 1024 * KIB
MANY_WAITS = 150
"""More calls than the default limits of proxies let run on one connection."""
ROLES = ("CALLER", "WORKER")
MINUTE = duration_pb2.Duration(seconds=60)
JSON = "Content-Type: application/json"


@pytest.fixture
def alice(replicas, function) -> Client:
    """A caller that may work on the function of the test, too."""
    client: Client = replicas[0].client("alice", ROLES, (function,))
    return client


async def call(channel: grpc.aio.Channel, client: Client, method: str, **fields: Any) -> Any:
    """Return the answer of a unary call."""
    return await client.begin(channel, method, **fields)


async def code_of(channel: grpc.aio.Channel, client: Client, **fields: Any) -> grpc.StatusCode:
    """Return the code of a get that the service refuses before it has the whole request.

    HAProxy sometimes cancels such a call, and clients repeat it.
    """
    code = grpc.StatusCode.CANCELLED
    for _ in range(5):
        if code is grpc.StatusCode.CANCELLED:
            code = await client.begin(channel, "GetOperation", **fields).code()
    return code


def running(replicas: list[Service]) -> Any:
    """Return the number of calls that run."""
    return sum(replica.metric("milepost_rpcs_running") for replica in replicas)


async def test_whole_life_passes(proxy, alice, function):
    """An operation is created, watched, claimed, reported on and completed through a proxy."""

    async def work(held: Any) -> int:
        await held.progress(0.5)
        await held.flush()
        return 7

    async with proxy.milepost(alice.key) as milepost:
        operation = await milepost.create(function)
        worker = Worker(milepost, {function: work}, lease=30)
        running: asyncio.Task[None] | None = None
        seen = []
        async with asyncio.timeout(30):
            async for change in milepost.watch(operation.id):
                seen.append(change.status)
                if running is None:
                    running = asyncio.create_task(worker.run())
            assert await milepost.result(operation.id) == 7
            worker.stop()
            assert running is not None
            await running
    assert (seen[0], seen[-1]) == (Status.PENDING, Status.COMPLETED)


async def test_largest_messages_pass(proxy, alice, function):
    """Requests of 2 MiB and answers of 3 MiB pass, and the service refuses larger requests."""
    result = any_pb2.Any(type_url="example.com/id", value=bytes(MIB - 16 * KIB))
    options = (("grpc.max_receive_message_length", -1),)
    async with proxy.channel(*options) as channel:
        ids = []
        for _ in range(3):
            created = await call(channel, alice, "CreateOperation", function=function)
            ids.append(created.operation.id)
            await call(channel, alice, "StartOperation", operation_id=ids[-1])
            await call(channel, alice, "CompleteOperation", operation_id=ids[-1], result=result)
        view = operation_pb2.OPERATION_VIEW_FULL
        page = await call(channel, alice, "ListOperations", function=function, view=view)
        assert {each.id for each in page.operations} == set(ids)
        assert all(each.result == result for each in page.operations)
        largest = "x" * (2 * MIB - 16)
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            await call(channel, alice, "GetOperation", operation_id=largest)
        code = await code_of(channel, alice, operation_id=largest + "x" * KIB)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await call(channel, alice, "GetOperation", operation_id=ids[0])


async def test_stream_of_large_messages_passes(proxy, alice, function):
    """A progress stream passes more bytes than any single request may have."""
    async with proxy.channel() as channel:
        stream = BY_METHOD["StreamProgress"].on(channel)(metadata=alice.metadata)
        checkpoint = any_pb2.Any(type_url="example.com/id", value=bytes(60 * KIB))
        ids = set()
        for _ in range(60):
            created = await call(channel, alice, "CreateOperation", function=function)
            update = worker_pb.ProgressUpdate(
                operation_id=created.operation.id, checkpoint=checkpoint
            )
            await stream.write(worker_pb.StreamProgressRequest(updates=[update]))
            ids.add(update.operation_id)
        await stream.done_writing()
        acknowledged = set()
        async for response in stream:
            if response.HasField("acknowledgement"):
                acknowledged.add(response.acknowledgement.operation_id)
            acknowledged |= {each.operation_id for each in response.acknowledgements}
    assert acknowledged == ids


async def test_refusals_pass_with_their_details(proxy, replicas, alice):
    """A refusal with many violations has all its details, and the connection goes on."""
    async with proxy.channel() as channel:
        events = ["\U0001f600" * 99] * 99
        for _ in range(20):
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
                await call(channel, alice, "CreateOperation", callback_events=events)
            assert {"function", "callback_events[0]"} <= set(refusal.violations)
        stranger = Client(replicas[0].channel, "unknown", frozenset(), "no key")
        code = await code_of(channel, stranger, operation_id="x" * MIB)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        metadata = (*alice.metadata, *((f"x-filler-{n}", "x" * 8_000) for n in range(6)))
        rpc = BY_METHOD["ListOperations"]
        await rpc.on(channel)(rpc.request(), metadata=metadata, timeout=20)


async def test_many_waits_hold_up_no_call(proxy, alice, function):
    """While many waits of one client run on its connection, further calls are answered."""
    async with proxy.channel() as channel:
        created = await call(channel, alice, "CreateOperation", function=function)
        waits = [
            alice.begin(
                channel,
                "WaitOperation",
                operation_id=created.operation.id,
                timeout=duration_pb2.Duration(seconds=15),
            )
            for _ in range(MANY_WAITS)
        ]
        await call(channel, alice, "CancelOperation", operation_id=created.operation.id)
        answers = await asyncio.gather(*waits)
    cancelled = operation_pb2.OPERATION_STATUS_CANCELLED
    assert {answer.operation.status for answer in answers} == {cancelled}


async def test_cancelled_calls_end_in_the_service(proxy, replicas, alice, function):
    """When a caller hangs up, its claim ends in the replica, and takes no work."""
    before = running(replicas)
    async with proxy.channel() as channel:
        claim = alice.begin(channel, "ClaimOperations", functions=[function], timeout=MINUTE)
        await until(lambda: running(replicas) > before)
        claim.cancel()
        await until(lambda: running(replicas) <= before)


def test_cancelled_requests_end_in_the_service(proxy, replicas, alice, function):
    """So does a claim over HTTP."""
    before = running(replicas)
    body = json.dumps({"functions": [function], "timeout": "60s"}).encode()
    headers = (f"Authorization: Bearer {alice.key}", f"Content-Length: {len(body)}")
    with RawHttp(proxy, proxy.context) as raw:
        raw.send("POST", "/v1/operations:claim", *headers, JSON, body=body)
        eventually(lambda: running(replicas) > before, within=10, what="the claim waits")
    eventually(lambda: running(replicas) <= before, within=10, what="the claim has ended")


def test_http_passes(proxy, alice, function):
    """The API over HTTP passes with its headers, problems and largest bodies."""
    http = Http(proxy, f"Bearer {alice.key}", proxy.context)
    created = http("POST", "/v1/operations", {"function": function}, Idempotency_Key="one")
    assert created.status == 202
    again = http("POST", "/v1/operations", {"function": function}, Idempotency_Key="one")
    assert again.headers["idempotent-replayed"] == "true"
    place = created.headers["location"]
    assert http("POST", f"{place}:start", {}).status == 200
    value = {"@type": "type.googleapis.com/google.protobuf.Value", "value": "x" * (MIB - 99)}
    assert http("POST", f"{place}:complete", {"result": value}).status == 200
    assert len(http("GET", place).body) > MIB - 99
    assert http("POST", f"{place}:start", {}, If_Match='"1"').refusal[0] == 412
    assert http("POST", "/v1/operations", {"function": "x" * (2 * MIB)}).status == 413
    assert http("POST", "/v1/operations", {}).json["violations"]
    http.close()


def test_probes_and_metrics_stay_inside(proxy):
    """A proxy answers neither probes nor metrics, which need no credential."""
    for path in ("/metrics", "/readyz", "/healthz"):
        http = Http(proxy, None, proxy.context)
        assert http("GET", path).status >= 400, path
        http.close()


def test_access_log_finds_the_caller_and_names_no_credential(proxy, replicas, alice):
    """The log of a proxy has the address of the caller and the trace, but not the query."""
    operation = alice.create()
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
    http = Http(proxy, None, proxy.context)
    path = f"/v1/operations/{operation.id}:watch"
    assert http("GET", f"{path}?access_token={alice.key}", traceparent=trace).status == 401
    http.close()
    # Envoy writes its log every 10 s.
    eventually(lambda: trace in proxy.log(), within=20, what="logged")
    (line,) = (line for line in proxy.log().splitlines() if trace in line)
    assert line.startswith(("127.0.0.1", "{"))  # the JSON of Caddy
    assert line.count("/v1/") == line.count(path) == 1
    assert alice.key not in line
    trace_id = trace.split("-")[1]
    eventually(
        lambda: any(replica.log_lines(trace_id=trace_id) for replica in replicas),
        within=5,
        what=f"the service has logged {trace_id}",
    )


def test_events_pass_at_once(proxy, alice, function):
    """A watch over HTTP gets each event when it happens, and not when a buffer is full."""
    operation = alice.create(function=function)
    with EventStream(RawHttp(proxy, proxy.context), alice.key, operation.id) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        events = stream.events()
        assert next(events).data["status"] == "OPERATION_STATUS_PENDING"
        alice.transition("StartOperation", operation.id)
        assert next(events).data["status"] == "OPERATION_STATUS_PROCESSING"
        alice.transition("CompleteOperation", operation.id)
        assert [event.data["status"] for event in events] == ["OPERATION_STATUS_COMPLETED"]
