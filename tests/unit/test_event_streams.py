"""Watches as server-sent events, whatever ends them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from milepost.api.errors import defect
from milepost.gen.milepost.v1 import operation_pb2
from milepost.gen.milepost.v1 import operation_service_pb2 as pb
from milepost.web import event_streams
from milepost.web.event_streams import send_events
from tests.waiting import until

TIMEOUT_S = 10
ITEM = pb.WatchOperationResponse(operation=operation_pb2.Operation(revision=7))
LARGE = operation_pb2.Operation(revision=8, progress_message=1_000_000 * "x")


class Watches:
    """A port whose every path watches what the test yields."""

    def __init__(self) -> None:
        self.port = 0
        self.ended = 0
        self.errors: list[Exception] = []
        self.items: list[Any] = []
        """Items, an exception to raise, or an event to wait for."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one watch."""

        def refuse(error: Exception) -> Any:
            self.errors.append(error)
            return defect("0")

        return await send_events(self._watch(), request, refuse, contextlib.nullcontext())

    async def _watch(self) -> AsyncGenerator[Any, None]:
        try:
            for item in self.items:
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, asyncio.Event):
                    await item.wait()
                else:
                    yield item
        finally:
            self.ended += 1


@pytest.fixture
async def watches() -> AsyncIterator[Watches]:
    """A port of watches."""
    found = Watches()
    app = web.Application()
    app.router.add_get("/", found.handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()
    await runner.cleanup()


async def begin(watches: Watches) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and begin a watch."""
    reader, writer = await asyncio.open_connection("127.0.0.1", watches.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return reader, writer


async def answer(watches: Watches) -> bytes:
    """Return the whole answer of a watch."""
    reader, writer = await begin(watches)
    try:
        return await asyncio.wait_for(reader.read(), TIMEOUT_S)
    finally:
        writer.close()


async def test_watch_without_items_has_no_content(watches):
    """A watch that ends at once is 204."""
    assert b"204 No Content" in await answer(watches)


async def test_defect_in_the_middle_is_an_event(watches):
    """A defect after the first event is reported once, and is an event without its text."""
    quiet = pb.WatchOperationResponse(keep_alive=pb.KeepAlive())
    watches.items = [ITEM, quiet, ValueError("secret")]
    found = await answer(watches)
    assert b'id: 7\nevent: operation\ndata: {"revision":"7"}\n\n' in found
    assert b": keep-alive\n\n" in found
    assert b"event: error\n" in found
    assert b"secret" not in found
    assert [type(error) for error in watches.errors] == [ValueError]
    assert watches.ended == 1


@pytest.mark.parametrize("before", [[], [ITEM]])
async def test_watch_of_a_caller_that_hangs_up_ends(watches, before):
    """A watch ends with its connection, before its first event and after it."""
    watches.items = [*before, asyncio.Event()]
    reader, writer = await begin(watches)
    if before:
        await asyncio.wait_for(reader.readuntil(b"data: "), TIMEOUT_S)
    else:
        await asyncio.sleep(0)
    writer.close()
    await until(lambda: watches.ended == 1)
    assert watches.errors == []


async def test_caller_that_does_not_read_is_cut_off(watches, monkeypatch):
    """A caller that makes no room for an event loses its connection, and its watch ends."""
    monkeypatch.setattr(event_streams, "MAX_WRITE_S", 0.2)
    watches.items = 50 * [pb.WatchOperationResponse(operation=LARGE)]
    _, writer = await begin(watches)
    await until(lambda: watches.ended == 1)
    writer.close()
    assert watches.errors == []
