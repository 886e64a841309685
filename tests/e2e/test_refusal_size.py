"""The size of refusals on the wire, through a proxy that measures it."""

from collections.abc import Mapping
from typing import Any

import grpc
import pytest

from milepost.api.refusals import MAX_BYTES
from milepost.gen.milepost.v1 import operation_pb2
from tests.e2e.rpcs import BY_METHOD, RPCS
from tests.e2e.service import RECONNECT
from tests.http2_proxy import http2_proxy

FACES = "\U0001f600" * 255
"""A name of the maximum length. Each character has twelve bytes in a sentence of gRPC."""
WORST: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "many violations": ("CreateOperation", {"callback_events": [FACES] * 2_000}),
    "violations of nested fields": (
        "FailOperation",
        {"errors": [operation_pb2.OperationError()] * 10_000},
    ),
    "violations of every name": (
        "CreateOperation",
        {
            "function": "\n" + FACES,
            "version": FACES * 9,
            "original_request_id": FACES * 9,
            "callback_url": FACES * 9,
            "request_id": FACES * 9,
        },
    ),
    "long facts": ("ClaimOperations", {"functions": [FACES]}),
    "many long facts": ("ClaimOperations", {"functions": [f"{n}{FACES[1:]}" for n in range(9)]}),
    "id of another form": ("WatchOperation", {"operation_id": FACES * 99}),
    "unknown webhook": ("RedeliverWebhook", {"delivery_id": FACES * 99}),
    "malformed page token": ("ListOperations", {"page_token": FACES * 99, "function": FACES * 9}),
}


@pytest.mark.parametrize("name", WORST)
async def test_refusal_fits_into_the_buffer_of_a_proxy(any_service, name):
    """The headers of the worst refusals are smaller on the wire than the bound."""
    method, given = WORST[name]
    rpc = BY_METHOD[method]
    caller = any_service.client("alice", roles=("CALLER", "WORKER"), functions=("video.*",))
    async with (
        http2_proxy(any_service.address) as proxy,
        grpc.aio.insecure_channel(proxy.address, options=RECONNECT) as channel,
    ):
        call = rpc.on(channel)(rpc.request(**given), metadata=caller.metadata, timeout=20)
        assert await call.code() is not grpc.StatusCode.OK
        assert dict(await call.trailing_metadata())["grpc-status-details-bin"]
        assert 0 < proxy.max_headers_bytes <= MAX_BYTES


async def test_refusal_without_a_credential_fits(any_service):
    """So are those of every RPC without a credential."""
    async with (
        http2_proxy(any_service.address) as proxy,
        grpc.aio.insecure_channel(proxy.address, options=RECONNECT) as channel,
    ):
        for rpc in RPCS:
            given = iter([rpc.request()]) if rpc.shape.startswith("stream") else rpc.request()
            call = rpc.on(channel)(given, timeout=20)
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
        assert 0 < proxy.max_headers_bytes <= MAX_BYTES


async def test_stream_that_is_refused_fits(any_service):
    """A progress stream that is refused because of a message ends within the bound, too."""
    rpc = BY_METHOD["StreamProgress"]
    admin = any_service.client("root", roles=("ADMIN",))
    async with (
        http2_proxy(any_service.address) as proxy,
        grpc.aio.insecure_channel(proxy.address, options=RECONNECT) as channel,
    ):
        call = rpc.on(channel)(iter([rpc.request(operation_id=FACES)]), metadata=admin.metadata)
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
        assert 0 < proxy.max_headers_bytes <= MAX_BYTES
