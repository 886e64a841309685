"""Connections of the HTTP port end in time, and a new one replaces the oldest at the limit."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from milepost.web import connections
from milepost.web.connections import HttpConnections
from milepost.web.probes import probe_app

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW_S = 0.2
TIMEOUT_S = 10


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The port of the probes."""
    runner = web.AppRunner(probe_app(lambda: None))
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
