"""A pooler of PostgreSQL connections in transaction mode, as PgBouncer has it.

A few server processes are for all clients, one of them for a client only while its transaction
runs.
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
READY = b"Z"
SYNC, QUERY, TERMINATE = b"S", b"Q", b"X"
IDLE = b"I"


class _Server:
    """One connection to the server, which any client may use."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, host: str, port: int, start: bytes) -> tuple["_Server", bytes]:
        """Connect with a client's start-up message; return the server's answers to it too."""
        server = cls(*await asyncio.open_connection(host, port))
        server.writer.write(start)
        return server, await server.answers()

    async def answers(self) -> bytes:
        """Return all messages of the server until it is ready; their end says how it is."""
        found = b""
        while True:
            kind, message = await _message(self.reader)
            found += message
            if kind == READY:
                return found


class TransactionPooler:
    """Serves clients with `servers` connections, the last used one first."""

    def __init__(self, host: str, port: int, servers: int) -> None:
        self._address = host, port
        self._free: list[_Server] = []
        self._room = asyncio.Semaphore(servers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            start = await _start_message(reader, writer)
            async with self._room:
                server, greeting = await _Server.connect(*self._address, start)
                self._free.append(server)
            writer.write(greeting)
            while await self._transaction(reader, writer, start):
                pass
        writer.transport.abort()

    async def _transaction(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, start: bytes
    ) -> bool:
        """Serve one transaction of a client; return False when the client leaves."""
        kind, message = await _message(reader)
        if kind == TERMINATE:
            return False
        async with self._room:
            server = (
                self._free.pop()
                if self._free
                else (await _Server.connect(*self._address, start))[0]
            )
            while True:
                server.writer.write(message)
                if kind in {QUERY, SYNC}:
                    found = await server.answers()
                    writer.write(found)
                    if found.endswith(IDLE):
                        break
                kind, message = await _message(reader)
            self._free.append(server)
        return True

    def close(self) -> None:
        """Close the connections to the server."""
        for server in self._free:
            server.writer.transport.abort()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the kind of the next message, and the whole message."""
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!I", head[1:])
    return head[:1], head + await reader.readexactly(length - 4)


async def _start_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Return the start-up message of a client, which may ask for encryption first."""
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!II", head)
        if code not in {SSL_REQUEST, GSS_REQUEST}:
            return head + await reader.readexactly(length - 8)
        writer.write(b"N")


@asynccontextmanager
async def transaction_pooler(url: str, *, servers: int) -> AsyncIterator[str]:
    """Run a pooler in front of the server of `url`; return the URL of the database behind it."""
    target = sa.make_url(url)
    pooler = TransactionPooler(target.host or "", target.port or 0, servers)
    listener = await asyncio.start_server(pooler.serve, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    try:
        yield target.set(host=host, port=port).render_as_string(hide_password=False)
    finally:
        listener.close()
        pooler.close()
