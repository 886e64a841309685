"""Many watches over HTTP on one thread: connections whose server-sent events are counted."""

import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tests.machine import slowdown

OPENED_AT_ONCE: Final = 50
"""Connections without a first response; the service closes the oldest of more than 100."""
WITHIN_S: Final = 60.0
_SOON_S: Final = 0.05


class Watch:
    """One connection that watches one operation."""

    __slots__ = ("changes", "connection", "is_ended", "keep_alives", "rest", "status")

    def __init__(self, address: tuple[str, int], path: str, key: str) -> None:
        self.connection = socket.create_connection(address, timeout=WITHIN_S)
        lines = (f"GET {path} HTTP/1.1", "Host: milepost", f"Authorization: Bearer {key}", "", "")
        self.connection.sendall("\r\n".join(lines).encode())
        self.rest = b""
        self.status = 0
        self.changes = 0
        self.keep_alives = 0
        self.is_ended = False

    def receive(self) -> None:
        """Count what has arrived. Every line ends with a line feed, those of HTTP too."""
        data = self.connection.recv(1 << 16)
        self.is_ended = self.is_ended or not data
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"HTTP/1.1 "):
                self.status = int(line.split()[1])
            elif line.startswith(b"id: "):
                self.changes += 1
            elif line.startswith(b": keep-alive"):
                self.keep_alives += 1
            elif line == b"0\r":  # the last chunk
                self.is_ended = True


class Watches:
    """Watches that are read as their events arrive."""

    def __init__(self) -> None:
        self.all: list[Watch] = []
        self._by_number: dict[int, Watch] = {}
        self._poll = select.epoll()

    def open(self, address: tuple[str, int], paths: Sequence[str], key: str) -> None:
        """Open a watch of each path, and wait for its first event."""
        for first in range(0, len(paths), OPENED_AT_ONCE):
            some = [Watch(address, path, key) for path in paths[first : first + OPENED_AT_ONCE]]
            for watch in some:
                self._by_number[watch.connection.fileno()] = watch
                self._poll.register(watch.connection, select.EPOLLIN)
            self.all += some
            self.until(lambda: all(watch.changes for watch in some), what="first events")  # noqa: B023

    def receive(self, max_wait_s: float) -> None:
        """Read what has arrived, or arrives in time."""
        for number, _ in self._poll.poll(max_wait_s):
            watch = self._by_number[number]
            watch.receive()
            if watch.is_ended:
                self._poll.unregister(number)

    def until(self, condition: Callable[[], bool], *, what: str) -> None:
        """Read until a condition holds; fail if it does not in time."""
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < WITHIN_S * slowdown(), f"not in time: {what}"
            self.receive(_SOON_S)

    def close(self) -> None:
        """Close all connections."""
        for watch in self.all:
            watch.connection.close()
        self._poll.close()


@contextmanager
def watches() -> Iterator[Watches]:
    """Provide watches, and close them."""
    found = Watches()
    try:
        yield found
    finally:
        found.close()
