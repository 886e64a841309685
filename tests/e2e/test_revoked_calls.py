"""Calls that wait or stream, while their API key is revoked or expires."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from milepost.gen.milepost.v1 import admin_service_pb2 as pb
from tests.e2e.client import Client
from tests.e2e.commands import DENIED, in_background, milepost
from tests.e2e.http.exchange import EventStream, RawHttp
from tests.e2e.rpcs import BY_METHOD, CALL_SECONDS
from tests.e2e.service import Service
from tests.machine import slowdown
from tests.waiting import eventually

REVOKED_S = 5.0
"""Time within which the calls of a revoked or expired key end, on a quiet machine."""
FUNCTION = "revoked.work"
LONG = Duration(seconds=50)


def preferred(client: Client, channel: grpc.aio.Channel, operation_id: str) -> Any:
    """Begin a get that prefers to wait for a change."""
    rpc = BY_METHOD["GetOperation"]
    return rpc.on(channel)(
        rpc.request(operation_id=operation_id),
        metadata=(*client.metadata, ("prefer", "wait=50")),
        timeout=CALL_SECONDS,
    )


LONG_CALLS: Mapping[str, Callable[[Client, grpc.aio.Channel, str], Any]] = {
    "watch": lambda client, channel, id_: client.watch(channel, id_),
    "wait": lambda client, channel, id_: client.begin(
        channel, "WaitOperation", operation_id=id_, timeout=LONG
    ),
    "preferred wait": preferred,
    "claim": lambda client, channel, _: client.begin(
        channel, "ClaimOperations", functions=[FUNCTION], timeout=LONG
    ),
    "progress stream": lambda client, channel, _: BY_METHOD["StreamProgress"].on(channel)(
        metadata=client.metadata, timeout=CALL_SECONDS
    ),
}


def issue(service: Service, admin: Client, **fields: Any) -> tuple[str, Client]:
    """Return the id of a new key of a caller that may also work, and its client."""
    roles = [pb.ROLE_CALLER, pb.ROLE_WORKER]
    issued = admin.call(
        "CreateApiKey", subject="leaver", roles=roles, functions=[FUNCTION], **fields
    )
    return issued.api_key.key_id, Client(service.channel, "leaver", frozenset(), issued.secret)


async def code_of(call: Any) -> StatusCode:
    """Read a call to its end and return its code."""
    with contextlib.suppress(grpc.RpcError):
        while hasattr(call, "read") and await call.read() is not grpc.aio.EOF:
            pass
    code: StatusCode = await call.code()
    return code


def running(service: Service, count: int) -> None:
    """Wait until so many calls run."""
    eventually(
        lambda: service.metric("milepost_rpcs_running") >= count, within=30, what="calls run"
    )


async def test_calls_end_with_their_key(any_service, admin):
    """Calls of a revoked key are UNAUTHENTICATED soon; that of another key of its subject stays."""
    key_id, leaver = issue(any_service, admin)
    _, stayer = issue(any_service, admin)
    operation = leaver.create(function=f"{FUNCTION}.other")
    async with any_service.aio_channel() as channel:
        calls = {kind: begin(leaver, channel, operation.id) for kind, begin in LONG_CALLS.items()}
        other = stayer.watch(channel, operation.id)
        await asyncio.to_thread(running, any_service, len(calls) + 1)
        admin.call("RevokeApiKey", key_id=key_id)
        async with asyncio.timeout(REVOKED_S * slowdown()):
            codes = {kind: await code_of(call) for kind, call in calls.items()}
        assert codes == dict.fromkeys(calls, StatusCode.UNAUTHENTICATED)
        assert not other.done()
        stayer.transition("CancelOperation", operation.id)
        assert await code_of(other) is StatusCode.OK


async def test_call_ends_when_its_key_expires(any_service, admin):
    """An expired key ends its calls as a revoked one does."""
    end = datetime.now(UTC) + timedelta(seconds=2)
    _, leaver = issue(any_service, admin, expire_time=end)
    operation = leaver.create(function=f"{FUNCTION}.other")
    async with any_service.aio_channel() as channel:
        watch = leaver.watch(channel, operation.id)
        async with asyncio.timeout(2 + REVOKED_S * slowdown()):
            assert await code_of(watch) is StatusCode.UNAUTHENTICATED
    assert datetime.now(UTC) >= end


def test_event_stream_ends_with_its_key(any_service, admin):
    """The last event of a watch over HTTP says that the credential is good no longer."""
    key_id, leaver = issue(any_service, admin)
    operation = leaver.create(function=f"{FUNCTION}.other")
    with EventStream(RawHttp(any_service), leaver.key, operation.id) as stream:
        events = stream.events()
        assert next(events).type == "operation"
        admin.call("RevokeApiKey", key_id=key_id)
        (last,) = events
    assert (last.type, last.data["status"]) == ("error", 401)
    assert last.data["reason"] == "UNAUTHENTICATED"


def test_claim_over_http_ends_with_its_key(any_service, admin):
    """A claim over HTTP of a revoked key gets 401, and the work goes to another worker."""
    key_id, leaver = issue(any_service, admin)
    _, stayer = issue(any_service, admin)
    body = b'{"functions": ["%s"], "timeout": "50s"}' % FUNCTION.encode()
    headers = (
        f"Authorization: Bearer {leaver.key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    with RawHttp(any_service) as raw:
        raw.send("POST", "/v1/operations:claim", *headers, body=body)
        running(any_service, 1)
        admin.call("RevokeApiKey", key_id=key_id)
        assert raw.status() == 401
    operation = stayer.create(function=FUNCTION)
    claimed = stayer.call("ClaimOperations", functions=[FUNCTION])
    assert [each.id for each in claimed.operations] == [operation.id]


def test_waiting_command_names_its_operation(any_service, admin):
    """The error of a command that has created an operation, and may not wait for it, has its id."""
    key_id, leaver = issue(any_service, admin)
    _, stayer = issue(any_service, admin)

    def revoke() -> None:
        running(any_service, 1)
        admin.call("RevokeApiKey", key_id=key_id)

    function = f"{FUNCTION}.waited"
    here = {"MILEPOST_ADDRESS": any_service.address, "MILEPOST_API_KEY": leaver.key}
    with in_background(revoke):
        done = milepost("ops", "create", function, "--wait", "--output", "json", **here)
    assert (done.code, done.out, done.error["reason"]) == (DENIED, "", "UNAUTHENTICATED")
    (operation,) = stayer.call("ListOperations", function=function).operations
    assert done.error["operation_id"] == operation.id
