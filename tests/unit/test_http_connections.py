"""Connections of the HTTP port end in time, and a new one replaces the oldest at the limit."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from milepost.web import connections
from milepost.web.connections import HttpConnections
from milepost.web.probes import State, probe_app
from tests.waiting import until

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW_S = 0.2
TIMEOUT_S = 10


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The port of the probes."""
    runner = web.AppRunner(probe_app(lambda: State(None, {})))
    await runner.setup()
    assert runner.server is not None
    protocols = HttpConnections(runner.server)
    server = await asyncio.get_running_loop().create_server(protocols, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await runner.cleanup()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Return all that is received until the end of the connection."""
    return await asyncio.wait_for(reader.read(), TIMEOUT_S)


async def ask(port: int) -> bytes:
    """Return the response of a request, and what follows until the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    try:
        return await answer(reader)
    finally:
        writer.close()


async def test_connection_has_one_request(port):
    """A response closes its connection."""
    response = await ask(port)
    assert b"200 OK" in response
    assert b"Connection: close" in response


@pytest.mark.parametrize("begin", [b"", REQUEST[:-2], REQUEST[:-2] + b"Content-Length: 9\r\n\r\nx"])
async def test_slow_connection_is_closed(port, monkeypatch, begin):
    """A connection that is silent, or does not complete its headers or body, is closed."""
    monkeypatch.setattr(connections, "MAX_REQUEST_S", SLOW_S)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)
    begun = asyncio.get_running_loop().time()
    try:
        await answer(reader)
    except ConnectionError:
        pass
    finally:
        writer.close()
    assert asyncio.get_running_loop().time() - begun < TIMEOUT_S / 2


async def test_new_connection_replaces_the_oldest(port, monkeypatch):
    """At the limit the oldest connection is closed, and a request is answered."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    assert b"200 OK" in await ask(port)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(silent[0][0].readexactly(1), TIMEOUT_S)
    for _, writer in silent:
        writer.close()


@pytest.fixture
async def served(monkeypatch) -> AsyncIterator[tuple[HttpConnections, int, asyncio.Event]]:
    """Connections whose every request is a call of an authenticated caller, its port, and its end.

    `/slow` runs until the event is set.
    """
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    done = asyncio.Event()

    async def answer_held(request: web.Request) -> web.Response:
        with protocols.held(request.transport):
            if request.path == "/slow":
                await done.wait()
        return web.Response(text="done")

    app = web.Application()
    app.router.add_get("/{page}", answer_held)
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    protocols = HttpConnections(runner.server)
    protocols.max_held = 2
    server = await asyncio.get_running_loop().create_server(protocols, "127.0.0.1", 0)
    yield protocols, server.sockets[0].getsockname()[1], done
    server.close()
    await runner.cleanup()


class Connection:
    """A connection that stays open between its requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, port: int) -> "Connection":
        """Open a connection."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, page: str) -> None:
        """Send a request."""
        self._writer.write(f"GET /{page} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    async def response(self) -> bytes:
        """Return a response; empty if the connection was closed."""
        try:
            head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), TIMEOUT_S)
            return head + await asyncio.wait_for(self._reader.readexactly(4), TIMEOUT_S)
        except (ConnectionError, asyncio.IncompleteReadError):
            return b""

    async def ask(self, page: str = "quick") -> bytes:
        """Return the response to a request."""
        self.send(page)
        return await self.response()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


async def test_held_connection_outlives_new_ones(served, monkeypatch):
    """While its call runs, a connection has no limit of time, and no new one replaces it."""
    protocols, port, done = served
    monkeypatch.setattr(connections, "MAX_REQUEST_S", SLOW_S)
    slow = await Connection.to(port)
    slow.send("slow")
    await until(lambda: len(protocols._all) == 1 and not protocols._new)
    strangers = [await Connection.to(port) for _ in range(5)]
    assert await strangers[0].response() == b""
    await until(lambda: not protocols._new)  # the others took too long
    done.set()
    assert b"done" in await slow.response()
    for each in (slow, *strangers):
        each.close()


async def test_idle_connection_outlives_new_ones(served):
    """Strangers replace each other, and not a connection that is idle between two calls."""
    _, port, _ = served
    idle = await Connection.to(port)
    assert b"done" in await idle.ask()
    strangers = [await Connection.to(port) for _ in range(5)]
    assert b"done" in await strangers[-1].ask()
    assert b"done" in await idle.ask()
    for each in (idle, *strangers):
        each.close()


async def test_longest_idle_connection_makes_room(served):
    """At the limit of all connections, the one that is idle for longest is closed."""
    protocols, port, _ = served
    idle = [await Connection.to(port) for _ in range(2)]
    for each in idle:
        assert b"done" in await each.ask()
    more = []
    while len(protocols._idle) < 4:
        more.append(await Connection.to(port))
        assert b"done" in await more[-1].ask()
    assert b"done" in await idle[0].ask()  # it is not the longest any more
    more.append(await Connection.to(port))
    assert b"done" in await more[-1].ask()
    assert await idle[1].ask() == b""
    assert b"done" in await idle[0].ask()
    for each in (*idle, *more):
        each.close()


async def test_idle_connection_ends(served, monkeypatch):
    """A connection whose caller sends no further request is closed."""
    monkeypatch.setattr(connections, "MAX_IDLE_S", SLOW_S)
    protocols, port, _ = served
    connection = await Connection.to(port)
    assert b"done" in await connection.ask()
    assert await connection.response() == b""
    assert not protocols._all
    assert not protocols._idle
    connection.close()
