"""Receivers of webhooks, polite and hostile ones.

As a program (``python -m tests.receivers NAME``) it serves every kind of hostile receiver
outside of the process that is measured, and prints their ports.
"""

import asyncio
import gzip
import json
import socket
import ssl
import struct
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path

from tests.certificates import Authority

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BOMB = gzip.compress(bytes(2**20)) * 1024
"""1 GiB of zeros, in about 1 MB."""


class Receiver:
    """A server on loopback that records requests and answers as `behaviour` does."""

    def __init__(self, behaviour: Behaviour, *, address: str = "127.0.0.1", port: int = 0) -> None:
        self._behaviour = behaviour
        self._place = address, port
        self._running: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.requests: list[bytes] = []
        self.server_name: str | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> "Receiver":
        """Start to accept connections."""
        if tls is not None:
            tls.sni_callback = self._note_name
        self._server = await asyncio.start_server(self._serve, *self._place, ssl=tls)
        return self

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop the server and its connections."""
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _note_name(self, _: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        self.server_name = name

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            self.requests.append(head + await reader.readexactly(length))
            await self._behaviour(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._running.discard(task)


def reply(status: int, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole answer, without a body."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Length: 0"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode()


def answering(answer: bytes) -> Behaviour:
    """Send `answer` and close."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return behave


def repeating(begin: bytes, part: bytes, *, pause: float = 0) -> Behaviour:
    """Send `begin`, and then `part` until the other side closes."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while not writer.is_closing():
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the status line and reset the connection."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Send nothing until the other side closes."""
    await reader.read()


HOSTILE: dict[str, Behaviour] = {
    "drip of headers": repeating(b"HTTP/1.1 200 OK\r\nX: ", b"x", pause=1),
    "drip of body": repeating(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x", pause=1),
    "endless body": repeating(b"HTTP/1.1 200 OK\r\n\r\n", bytes(65_536)),
    "endless header": repeating(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536),
    "interim answers": repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
    "gzip bomb": answering(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB)
        + BOMB
    ),
    "10,000 headers": answering(
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n"
    ),
    "large headers": answering(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
        + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 8_000) for n in range(100))
        + b"\r\n"
    ),
    "reset": reset,
    "silence": silence,
}


async def serve_hostile_ones(name: str) -> None:
    """Serve every kind of `HOSTILE`, plainly and as `name` over TLS, until standard input ends.

    Prints the ports of both and the certificate of the authority.
    """
    kinds = HOSTILE.items()
    plain = {kind: await Receiver(behave).start() for kind, behave in kinds}
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        vouched = authority.certificate
        tls = {
            kind: await Receiver(behave).start(authority.certified(name)) for kind, behave in kinds
        }
    places = {
        "http": {kind: receiver.port for kind, receiver in plain.items()},
        "https": {kind: receiver.port for kind, receiver in tls.items()},
        "authority": vouched,
    }
    print(json.dumps(places), flush=True)  # noqa: T201 - what the parent process reads
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve_hostile_ones(sys.argv[1]))
