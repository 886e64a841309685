"""A TCP proxy that can become a black hole: it stays connected, and nothing gets through."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast


class Pipe:
    """Forwards connections to one address; protocols instead of streams, because all calls pass."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self.target = host, int(port)
        self.is_cut = False
        self._lost: set[asyncio.Transport] = set()
        self.open: set[asyncio.Transport] = set()
        self.address = ""

    def cut(self) -> None:
        """Forward nothing any more, and tell neither side."""
        self.is_cut = True
        self._lost |= self.open

    def heal(self) -> None:
        """Forward new connections, and reset those whose bytes are lost."""
        self.is_cut = False
        lost, self._lost = self._lost, set()
        for transport in lost:
            transport.abort()

    def opened(self, transport: asyncio.Transport) -> None:
        """Take a connection, which is lost if it was made into the hole."""
        self.open.add(transport)
        if self.is_cut:
            self._lost.add(transport)

    def is_lost(self, transport: asyncio.Transport | None) -> bool:
        """Return whether a connection has been in the hole."""
        return transport in self._lost


class _Side(asyncio.Protocol):
    """One side of a connection; what arrives goes to the other side."""

    def __init__(self, pipe: Pipe, other: "_Side | None" = None) -> None:
        self._pipe = pipe
        self._other = other
        self._early: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the target for a client, or send what the client has sent already."""
        self.transport = cast("asyncio.Transport", transport)
        self._pipe.opened(self.transport)
        if self._other is None:
            self._other = _Side(self._pipe, self)
            self._connecting = asyncio.ensure_future(self._connect(self._other))
        elif self._other.transport is None or self._other.transport.is_closing():
            self.transport.abort()
        else:
            self.transport.writelines(self._other.take_early())

    async def _connect(self, other: "_Side") -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: other, *self._pipe.target)
        except OSError:
            if self.transport is not None:
                self.transport.abort()

    def take_early(self) -> list[bytes]:
        """Return what came before the other side was connected."""
        early, self._early = self._early, []
        return early

    def data_received(self, data: bytes) -> None:
        """Forward, unless the connection is lost."""
        there = self._other.transport if self._other else None
        if self._pipe.is_lost(self.transport):
            return
        if there is None:
            self._early.append(data)
        elif not there.is_closing():
            there.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other side, unless that is in the hole."""
        if self.transport is None or self._other is None:
            return
        self._pipe.open.discard(self.transport)
        there = self._other.transport
        if there is None or self._pipe.is_lost(there):
            return
        if error is None:
            there.close()
        else:
            there.abort()


@asynccontextmanager
async def pipe(target: str) -> AsyncIterator[Pipe]:
    """Run a pipe to an address on a free port of the loopback."""
    found = Pipe(target)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Side(found), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    found.address = f"{host}:{port}"
    try:
        yield found
    finally:
        server.close()
        for transport in tuple(found.open):
            transport.abort()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 1)
