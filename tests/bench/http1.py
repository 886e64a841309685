"""A JSON-over-HTTP/1.1 load generator as cheap as `load`: each caller has its own connection."""

import re
import socket
from collections.abc import Sequence

from tests.bench.jobs import Call, Caller
from tests.bench.jobs import Connection as ConnectionOfCallers

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_OK = (b"200", b"201")


def request_head(method: str, path: str, *headers: str) -> bytes:
    """Return the request line and the headers without the Content-Length, which follows."""
    lines = (f"{method} {path} HTTP/1.1", "host: localhost", "content-type: application/json")
    return "\r\n".join((*lines, *headers)).encode()


class Connection:
    """One connection with one caller."""

    def __init__(self, port: int, caller: Caller) -> None:
        self.busy = 0
        self._caller = caller
        self._rest = b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def begin(self, now: float) -> None:
        """Make the first call of the caller."""
        self.busy = 1
        self._send(self._caller.begin(now))

    def receive(self, data: bytes, now: float) -> None:
        """Take received bytes; when the reply is complete, make the next call."""
        if not data:
            self.lose("the server closed the connection")
            return
        self._rest += data
        end = self._rest.find(_END_OF_HEAD)
        if end < 0:
            return
        head = self._rest[:end]
        length = _LENGTH.search(head)
        if length is None:
            self.lose("a reply without content-length")
            return
        body = self._rest[end + len(_END_OF_HEAD) :]
        if len(body) < int(length[1]):
            return
        self._rest = b""
        status = head[9:12]
        if status in _OK and body:
            following = self._caller.reply(body, now)
        else:
            following = self._caller.refuse(f"HTTP {status!r}: {body[:120]!r}", now)
        if following is None:
            self.busy = 0
        else:
            self._send(following)

    def lose(self, reason: str) -> None:
        """Fail the call in flight, and make no more."""
        self.busy = 0
        self._caller.refuse(reason, float("inf"))

    def _send(self, call: Call) -> None:
        self.socket.sendall(
            b"%b\r\ncontent-length: %d\r\n\r\n%b" % (call.head, len(call.body), call.body)
        )


def connect(port: int, callers: Sequence[Caller]) -> list[ConnectionOfCallers]:
    """Open one connection for each caller."""
    connections: list[ConnectionOfCallers] = []
    try:
        connections.extend(Connection(port, caller) for caller in callers)
    except BaseException:
        for connection in connections:
            connection.socket.close()
        raise
    return connections
