"""A TCP proxy in front of several services that cuts connections."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

CHANCE = random.Random()  # noqa: S311 - which connection is cut is no secret
PIECE_BYTES = 65_536


class Proxy:
    """Takes connections and leads each to one of the services."""

    address = ""

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = targets
        self._open: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    def cut_one(self) -> None:
        """One connection, any, ends in the middle of whatever it carries."""
        if self._open:
            CHANCE.choice(list(self._open)).transport.abort()
            self.cuts += 1

    async def cut_now_and_then(self, seconds: float) -> None:
        """Cut one connection after the other, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            self.cut_one()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry what comes, both ways, until either side is gone."""
        host, _, port = CHANCE.choice(self._targets).rpartition(":")
        there, to_there = await asyncio.open_connection(host, int(port))
        self._open.add(writer)
        try:
            ways = [_carry(reader, to_there), _carry(there, writer)]
            tasks = [asyncio.create_task(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._open.discard(writer)
            for each in (writer, to_there):
                each.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def proxy(*targets: str) -> AsyncIterator[Proxy]:
    """A proxy to these addresses, on a free port."""
    found = Proxy(targets)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    found.address = f"{host}:{port}"
    try:
        yield found
    finally:
        server.close()
        while found._open:
            found.cut_one()
            await asyncio.sleep(0)
