"""Connections of an HTTP port: bounded in number and in time.

aiohttp itself keeps a connection that sends nothing, or sends slowly, for ever. Each one is a file
descriptor, and those of the process are needed for the gRPC port.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

MAX_CONNECTIONS: Final = 100
"""Connections that have not had an authenticated call yet."""
MAX_REQUEST_S: Final = 10.0
"""Time in which a connection must have sent its first request, and read the response."""
MAX_IDLE_S: Final = 75.0
"""Time between two requests of a connection whose caller was authenticated."""


class HttpConnections:
    """Makes the protocol of each connection.

    A connection is *new* until its first call of an authenticated caller, *held* while such a call
    runs, and *idle* between two of them. At the limit of new connections, a further one replaces
    the oldest one: a request takes milliseconds, so the oldest one is one that does not get on. At
    the limit of all connections, a further one replaces the one that is idle for longest.
    """

    def __init__(self, server: web.Server) -> None:
        """Serve with `server`, and hold no connection."""
        self.server = server
        """Serves the connections that open from now on."""
        self.max_held = 0
        """Maximum number of held and idle connections."""
        self._new: dict[HttpConnection, None] = {}
        self._idle: dict[HttpConnection, None] = {}
        self._all: dict[asyncio.BaseTransport, HttpConnection] = {}

    def __call__(self) -> HttpConnection:
        """Return the protocol of a new connection."""
        return HttpConnection(self.server(), self)

    @contextlib.contextmanager
    def held(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """Keep the connection open while a call of an authenticated caller runs on it."""
        connection = None if transport is None else self._all.get(transport)
        if connection is None:  # it is closed already
            yield
            return
        self._new.pop(connection, None)
        self._idle.pop(connection, None)
        connection.limit(None)
        try:
            yield
        finally:
            if transport in self._all:
                self._idle[connection] = None
                connection.limit(MAX_IDLE_S)

    def opened(self, connection: HttpConnection) -> None:
        """Count a connection, and make room for it."""
        self._all[connection.transport] = connection
        self._new[connection] = None
        connection.limit(MAX_REQUEST_S)
        if len(self._new) > MAX_CONNECTIONS:
            next(iter(self._new)).abort()
        elif len(self._all) > MAX_CONNECTIONS + self.max_held:
            next(iter(self._idle or self._new)).abort()

    def closed(self, connection: HttpConnection) -> None:
        """Count a connection no more."""
        self._all.pop(connection.transport, None)
        self._new.pop(connection, None)
        self._idle.pop(connection, None)


class HttpConnection(asyncio.Protocol):
    """Passes one connection on to aiohttp, and ends it in time."""

    def __init__(self, inner: asyncio.BaseProtocol, connections: HttpConnections) -> None:
        """Pass everything on to `inner`."""
        self._inner = cast("asyncio.Protocol", inner)
        self._connections = connections
        self._limit: asyncio.TimerHandle | None = None

    def limit(self, seconds: float | None) -> None:
        """Abort the connection after `seconds`, or not at all."""
        if self._limit is not None:
            self._limit.cancel()
        loop = asyncio.get_running_loop()
        self._limit = None if seconds is None else loop.call_later(seconds, self.abort)

    def abort(self) -> None:
        """Close the connection at once."""
        self._connections.closed(self)
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and make room for it."""
        self.transport = cast("asyncio.Transport", transport)
        self._inner.connection_made(transport)
        self._connections.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.limit(None)
        self._connections.closed(self)
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
