"""Receivers of webhooks at 200 loopback addresses, of which the first ones accept and never answer.

As a program (``python -m tests.faults.hanging_hosts COUNT``) it serves them outside of the process
that is measured, and prints their port.
"""

import asyncio
import sys
from ipaddress import IPv4Address
from typing import Final

HOSTS: Final = 200
_FIRST: Final = int(IPv4Address("127.9.0.1"))
_ANSWER: Final = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


def address(number: int) -> str:
    """Return the loopback address of a host."""
    return str(IPv4Address(_FIRST + number))


class Receiver(asyncio.Protocol):
    """One connection, which is answered unless its host hangs."""

    def __init__(self, hanging: frozenset[str]) -> None:
        self._hanging = hanging

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note if the host of the connection hangs."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._hangs = transport.get_extra_info("sockname")[0] in self._hanging

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - one request fits in a segment
        """Answer, and close."""
        if not self._hangs:
            self._transport.write(_ANSWER)
            self._transport.close()


async def serve(count: int) -> None:
    """Serve all hosts until standard input ends; the first `count` of them hang."""
    hanging = frozenset(map(address, range(count)))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Receiver(hanging), "0.0.0.0", 0, backlog=4_096)  # noqa: S104 - every loopback address
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - for the parent process
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
