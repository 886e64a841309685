"""A proxy that forwards the frames of HTTP/2, and breaks calls in the ways of real proxies.

It also measures the headers with which the service answers.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.bench import frames

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 0x0, 0x1, 0x2, 0x7, 0x8
"""Error codes of RST_STREAM."""
_END = frames.END_STREAM | frames.END_HEADERS
_NO_TABLE = frames.settings([(frames.HEADER_TABLE_SIZE, 0)])[frames.FRAME_HEADER :]
"""Asks the service for headers without compression state: each can be dropped, and measured."""


@dataclass(frozen=True)
class Frame:
    """One frame of a connection."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def encode(self) -> bytes:
        """Return the bytes of the frame."""
        return frames.frame(self.kind, self.flags, self.stream, self.payload)


Ending = Callable[[int, bool], bytes]
"""The frames that end a stream: of its number, and whether it has had headers."""


def reset(code: int) -> Ending:
    """End a stream as nginx does when it loses the replica (INTERNAL_ERROR)."""
    return lambda stream, _: frames.frame(frames.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def page(status: int) -> Ending:
    """Answer with an error page; a stream that has had headers is reset."""
    block = frames.head((":status", str(status)), ("content-type", "text/html"))
    return lambda stream, begun: (
        reset(INTERNAL_ERROR)(stream, begun)
        if begun
        else frames.frame(frames.HEADERS, _END, stream, block)
    )


def trailers(code: int) -> Ending:
    """End a stream with a status of gRPC and without any detail."""
    start = ((":status", "200"), ("content-type", "application/grpc"))
    end = (("grpc-status", str(code)), ("grpc-message", "upstream reset"))

    def ending(stream: int, begun: bool) -> bytes:  # noqa: FBT001 - of the type `Ending`
        block = frames.head(*(end if begun else start + end))
        return frames.frame(frames.HEADERS, _END, stream, block)

    return ending


class _Connection:
    """One connection of a client, and the one to the service that belongs to it."""

    def __init__(self, proxy: "Http2Proxy", client: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self.client = client
        self.open: dict[int, bool] = {}
        """The open streams, and whether the service has sent headers on each."""
        self.service: asyncio.StreamWriter | None = None

    def end_streams(self, ending: Ending) -> None:
        """End all open streams towards the client, and cancel them towards the service."""
        for stream in tuple(self.open):
            self.end(stream, ending)

    def end(self, stream: int, ending: Ending) -> None:
        """End one stream."""
        self.client.write(ending(stream, self.open.pop(stream)))
        if self.service is not None:
            self.service.write(reset(CANCEL)(stream, True))  # noqa: FBT003 - of the type `Ending`
        self._proxy.broken += 1

    async def to_service(self, reader: asyncio.StreamReader, service: asyncio.StreamWriter) -> None:
        """Forward what the client sends."""
        self.service = service
        service.write(await reader.readexactly(len(frames.PREFACE)))
        while True:
            frame = await _read(reader)
            if frame.kind == frames.SETTINGS and not frame.flags & frames.ACK:
                frame = Frame(frame.kind, frame.flags, 0, frame.payload + _NO_TABLE)
            if frame.kind == frames.HEADERS and frame.stream not in self.open:
                self.open[frame.stream] = False
            service.write(frame.encode())
            await service.drain()
            if self._proxy.ending is not None and frame.kind == frames.HEADERS:
                self.end(frame.stream, self._proxy.ending)

    async def to_client(self, reader: asyncio.StreamReader) -> None:
        """Forward what the service sends on open streams."""
        while True:
            frame = await _read(reader)
            if frame.stream and frame.stream not in self.open:
                continue
            if frame.kind == frames.HEADERS and self._proxy.lose_next_answer:
                self._proxy.lose_next_answer = False
                self._proxy.cut()
                return
            if frame.kind == frames.HEADERS:
                self.open[frame.stream] = True
                size = len(frame.payload)
                self._proxy.max_headers_bytes = max(self._proxy.max_headers_bytes, size)
            is_last = frame.flags & frames.END_STREAM and frame.kind in {
                frames.HEADERS,
                frames.DATA,
            }
            if is_last or frame.kind == frames.RST_STREAM:
                self.open.pop(frame.stream, None)
            self.client.write(frame.encode())
            await self.client.drain()


class Http2Proxy:
    """A proxy to one service."""

    def __init__(self, target: str) -> None:
        self.aim(target)
        self.address = ""
        self.ending: Ending | None = None
        """How every new stream ends, unless it is None."""
        self.lose_next_answer = False
        """Cut all connections instead of forwarding the next answer."""
        self.broken = 0
        """Number of streams that the proxy has ended."""
        self.max_headers_bytes = 0
        """Size of the largest headers from the service."""
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def aim(self, target: str) -> None:
        """Forward new connections to this address."""
        host, _, port = target.rpartition(":")
        self._target = host, int(port)

    @property
    def open_streams(self) -> int:
        """Number of calls that run through the proxy."""
        return sum(len(connection.open) for connection in self._connections)

    def end_streams(self, ending: Ending) -> None:
        """End all open streams."""
        for connection in self._connections:
            connection.end_streams(ending)

    def cut(self) -> None:
        """Cut all connections."""
        for connection in self._connections:
            connection.client.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until a side closes it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = _Connection(self, writer)
        self._connections.add(connection)
        there, service = await asyncio.open_connection(*self._target)
        ways = (
            asyncio.create_task(connection.to_service(reader, service)),
            asyncio.create_task(connection.to_client(there)),
        )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._connections.discard(connection)
            service.transport.abort()
            writer.transport.abort()
            self._tasks.discard(task)

    async def end(self) -> None:
        """Close all connections."""
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Frame:
    head = await reader.readexactly(frames.FRAME_HEADER)
    length = int.from_bytes(head[:3], "big")
    return Frame(
        head[3], head[4], int.from_bytes(head[5:], "big"), await reader.readexactly(length)
    )


@asynccontextmanager
async def http2_proxy(target: str) -> AsyncIterator[Http2Proxy]:
    """Run a proxy to this address on a free port."""
    proxy = Http2Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy.address = f"{host}:{port}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
