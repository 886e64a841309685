"""A receiver of webhooks that does nothing but count: it answers every POST with an empty 200.

It listens on several ports, which are several hosts to whoever sends. A GET on any of them tells
how many POSTs came and when the first and the last of them, and begins to count anew.

    python -m tests.bench.receiver PORT [PORT ...]
"""

import asyncio
import json
import re
import sys
import time
from typing import cast

import uvloop

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Counts:
    """What came since it was asked for last."""

    def __init__(self) -> None:
        self.posts = 0
        self.first = 0.0
        self.last = 0.0

    def add(self) -> None:
        """A POST came in full."""
        self.last = time.perf_counter()
        if not self.posts:
            self.first = self.last
        self.posts += 1

    def told(self) -> bytes:
        """All of it as an answer; nothing of it is left."""
        body = json.dumps({"posts": self.posts, "seconds": self.last - self.first}).encode()
        self.posts = 0
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Connection(asyncio.Protocol):
    """One connection; requests come one after the other."""

    transport: asyncio.Transport

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """A part of a request came, or all of it."""
        self._waiting += data
        end = self._waiting.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._waiting, 0, end + 2)
        if len(self._waiting) < end + 4 + (int(length[1]) if length else 0):
            return
        posted = self._waiting.startswith(b"POST ")
        self._waiting = b""
        if posted:
            self._counts.add()
        self.transport.write(_OK if posted else self._counts.told())


async def serve(ports: list[int]) -> None:
    """Answer until the process is ended."""
    loop, counts = asyncio.get_running_loop(), Counts()
    for port in ports:
        await loop.create_server(lambda: Connection(counts), "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve([int(port) for port in sys.argv[1:]]))
