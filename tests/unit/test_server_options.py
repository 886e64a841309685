"""The options of the gRPC server, as gRPC applies them: which pings of clients are admitted.

The intervals are those of the service divided by 50, so that a test takes seconds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from milepost.rpc.options import server_options
from tests.raw_connection import RawConnection

SPEED = 50
TOO_MANY = b"too_many_pings"
PINGS = 8
METHOD = "test.Quiet/Wait"


class _Quiet(grpc.GenericRpcHandler):
    """One method that never answers."""

    def service(self, _details: Any) -> Any:
        async def wait(_requests: Any, _context: Any) -> None:
            await asyncio.Event().wait()

        return grpc.stream_stream_rpc_method_handler(wait)


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """The address of a server with the options of the service, and fast pings."""
    options = [
        (name, value // SPEED if "ping_interval" in name else value)
        for name, value in server_options(request_bytes=1_000, connections=100)
    ]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((_Quiet(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


def received(address: str, interval_s: float, *, calls: bool) -> bytes:
    """Return the answers to pings in this interval, during a quiet call or without calls."""
    with RawConnection(address) as connection:
        if calls:
            connection.open_call(METHOD, body=b"")
        with contextlib.suppress(ConnectionError):  # sent away
            for _ in range(PINGS):
                connection.ping()
                connection.read_for(interval_s / SPEED)
        return connection.received


@pytest.mark.parametrize(("interval_s", "calls"), [(10, True), (10, False), (30, False)])
async def test_documented_pings_are_admitted(address, interval_s, calls):
    """A client may ping every 10 s during a quiet call, and every 30 s without calls."""
    assert TOO_MANY not in await asyncio.to_thread(received, address, interval_s, calls=calls)


@pytest.mark.parametrize("calls", [True, False])
async def test_faster_pings_are_refused(address, calls):
    """A client that pings every 5 s is sent away, during calls and without."""
    assert TOO_MANY in await asyncio.to_thread(received, address, 5, calls=calls)
