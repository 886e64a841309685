"""Connections of the HTTP port: bounded in number and in time.

aiohttp itself keeps a connection that sends nothing, or sends slowly, for ever. Each one is a file
descriptor, and those of the process are needed for the gRPC port.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

MAX_CONNECTIONS: Final = 100
MAX_CONNECTION_S: Final = 10.0
"""Time in which a connection must have sent its one request and read the response."""


class HttpConnections:
    """Makes the protocol of each connection. At the limit a new one replaces the oldest one.

    A request takes milliseconds, so the oldest connection is one that does not get on.
    """

    def __init__(self, server: web.Server) -> None:
        """Serve with `server`."""
        self._server = server
        self._open: dict[HttpConnection, None] = {}

    def __call__(self) -> HttpConnection:
        """Return the protocol of a new connection."""
        return HttpConnection(self._server(), self._opened, self._closed)

    def _opened(self, connection: HttpConnection) -> None:
        self._open[connection] = None
        if len(self._open) > MAX_CONNECTIONS:
            next(iter(self._open)).abort()

    def _closed(self, connection: HttpConnection) -> None:
        self._open.pop(connection, None)


class HttpConnection(asyncio.Protocol):
    """Passes one connection on to aiohttp, and ends it in time."""

    def __init__(
        self,
        inner: asyncio.BaseProtocol,
        opened: Callable[[HttpConnection], None],
        closed: Callable[[HttpConnection], None],
    ) -> None:
        """Pass everything on to `inner`."""
        self._inner = cast("asyncio.Protocol", inner)
        self._on_open, self._on_close = opened, closed

    def abort(self) -> None:
        """Close the connection at once."""
        self._on_close(self)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and make room for it."""
        self._transport = cast("asyncio.Transport", transport)
        loop = asyncio.get_running_loop()
        self._limit = loop.call_later(MAX_CONNECTION_S, self.abort)
        self._inner.connection_made(transport)
        self._on_open(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._limit.cancel()
        self._on_close(self)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on received bytes."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on the end of the other direction."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass on that the peer does not read."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the peer reads again."""
        self._inner.resume_writing()
