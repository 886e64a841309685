"""Where log lines go, without the event loop ever waiting for whoever reads them."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Final

from milepost.telemetry import metrics
from milepost.telemetry.afterwards import EndOfTurn

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_KEPT: Final = 16 * 1024 * 1024
"""Bytes that wait for a reader; lines that come then are lost, counted, and told of."""
PIECE: Final = select.PIPE_BUF
"""What a pipe takes without waiting as soon as it takes anything."""
PAUSE_S: Final = 0.02
FAREWELL_MS: Final = 2_000
"""How long a reader that stands still can hold up a process that ends."""


class LineWriter:
    """Writes the lines of one turn of the event loop at once; outside of a loop, each at once.

    A write for every line would let go of the interpreter lock in the middle of every call. A pipe
    whose reader stands still is tried again later: calls go on meanwhile, and lines wait.

    It is for one thread. What other threads have to say, they say on the event loop.
    """

    def __init__(self, descriptor: int, lost: Callable[[int], str]) -> None:
        """Write to a file descriptor; `lost` makes the line that says how many are missing."""
        self._descriptor = descriptor
        self._lost = lost
        self._lines: list[str] = []
        self._left = bytearray()
        self._missing = 0
        self._turn = EndOfTurn(self._write, outside=self.finish)
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLOUT)

    def msg(self, line: str) -> None:
        """Take one line."""
        self._lines.append(line)
        self._turn.plan()

    debug = info = warning = error = critical = exception = msg

    def finish(self) -> None:
        """Write what is left, as far as it is read."""
        self._gather()
        self._put(FAREWELL_MS)

    def _write(self) -> None:
        self._gather()
        self._put(0)
        if self._left:
            self._turn.plan(PAUSE_S)

    def _gather(self) -> None:
        """Make bytes of the lines, if there is room for them."""
        lines, self._lines = self._lines, []
        if len(self._left) >= MOST_KEPT:
            self._miss(len(lines))
            return
        if self._missing:
            lines.insert(0, self._lost(self._missing))
            self._missing = 0
        if lines:
            self._left += ("\n".join(lines) + "\n").encode(errors="backslashreplace")

    def _put(self, patience_ms: int) -> None:
        """Write until nothing is left, or nothing was taken for so long."""
        while self._left and self._ready.poll(patience_ms):
            try:
                written = os.write(self._descriptor, self._left[:PIECE])
            except BlockingIOError:  # somebody else has filled the pipe
                return
            except OSError:  # it is closed, or the disk is full
                self._miss(self._left.count(b"\n"))
                self._left.clear()
                return
            del self._left[:written]

    def _miss(self, lines: int) -> None:
        self._missing += lines
        metrics.lines_lost.inc(lines)
