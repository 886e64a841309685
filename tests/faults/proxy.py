"""A TCP proxy in front of several services that cuts or silences connections."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager

CHANCE = random.Random()  # noqa: S311 - which connection is cut is no secret
PIECE_BYTES = 65_536
TURNS = 5


class Proxy:
    """A proxy that accepts connections and forwards each to one of the services."""

    address = ""

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = targets
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._silent: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    def silence(self) -> None:
        """Forward nothing more on the present connections, and keep them open."""
        self._silent.update(self._open)

    def cut_one(self) -> None:
        """Cut one connection at any moment of its traffic."""
        if self._open:
            CHANCE.choice(list(self._open)).transport.abort()
            self.cuts += 1

    async def cut_now_and_then(self, seconds: float) -> None:
        """Cut one connection after the other, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            self.cut_one()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward the bytes of both directions until one side closes."""
        task = asyncio.current_task()
        assert task is not None
        self._open[writer] = task
        host, _, port = CHANCE.choice(self._targets).rpartition(":")
        try:
            there, to_there = await asyncio.open_connection(host, int(port))
            try:
                await _either(
                    self._carry(writer, reader, to_there), self._carry(writer, there, writer)
                )
            finally:
                to_there.transport.abort()
        finally:
            del self._open[writer]
            self._silent.discard(writer)
            writer.transport.abort()

    async def _carry(
        self,
        connection: asyncio.StreamWriter,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Forward one direction of a connection, which its writer to the client identifies."""
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(PIECE_BYTES):
                if connection not in self._silent:
                    writer.write(piece)
                    await writer.drain()

    async def end(self) -> None:
        """Close all connections, also those that are being made."""
        await _turns()  # an accepted connection reaches `serve` in the third one
        tasks = tuple(self._open.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _turns()  # an aborted transport closes its socket in the next one


async def _turns() -> None:
    """Let what is ready run, and what that makes ready."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def _either(*ways: Coroutine[None, None, None]) -> None:
    """Forward both directions until one of them ends."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def proxy(*targets: str) -> AsyncIterator[Proxy]:
    """Run a proxy to these addresses on a free port."""
    found = Proxy(targets)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    found.address = f"{host}:{port}"
    try:
        yield found
    finally:
        # A server that closes leaks a connection that it is accepting, so it accepts no more before
        # (github.com/python/cpython/issues/109564).
        asyncio.get_running_loop().remove_reader(server.sockets[0].fileno())
        await found.end()
        server.close()
