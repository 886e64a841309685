"""A writer of log lines that never blocks the event loop."""

from __future__ import annotations

import asyncio
import os
import select
from typing import TYPE_CHECKING, Final

from milepost.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BUFFER_BYTES: Final = 16 * 1024 * 1024
"""Bound of the lines that wait for the reader. Further lines are dropped and counted."""
CHUNK_BYTES: Final = select.PIPE_BUF
"""A pipe that accepts anything accepts this much without blocking."""
RETRY_INTERVAL_S: Final = 0.02
EXIT_TIMEOUT_MS: Final = 2_000
"""Time that a reader that does not read can delay the exit of the process."""


class LineWriter:
    """Writes the lines of one event-loop iteration at once, and without a loop each line at once.

    A write for each line would release the interpreter lock in the middle of every call. If the
    reader of a pipe does not keep up, lines wait in memory and the write is retried later.

    Not thread-safe: other threads log on the event loop.
    """

    def __init__(self, descriptor: int, lost: Callable[[int], str]) -> None:
        """Write to a file descriptor; `lost` formats the line that reports dropped lines."""
        self._descriptor = descriptor
        self._lost = lost
        self._lines: list[str] = []
        self._unwritten = bytearray()
        self._dropped = 0
        self._scheduled_on: asyncio.AbstractEventLoop | None = None
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLOUT)

    def msg(self, line: str) -> None:
        """Take one line."""
        self._lines.append(line)
        if self._scheduled_on is None or self._scheduled_on.is_closed():
            self._schedule()

    debug = info = warning = error = critical = exception = msg

    def finish(self) -> None:
        """Write the remaining lines, and give up on a reader that does not read."""
        self._encode()
        self._write(EXIT_TIMEOUT_MS)

    def _schedule(self, delay_s: float = 0.0) -> None:
        """Flush in the next iteration of the loop or after a delay; without a loop now."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.finish()
            return
        self._scheduled_on = loop
        if delay_s:
            loop.call_later(delay_s, self._flush)
        else:
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled_on = None
        self._encode()
        self._write(0)
        if self._unwritten:
            self._schedule(RETRY_INTERVAL_S)

    def _encode(self) -> None:
        """Move the lines into the buffer of bytes, or drop them if it is full."""
        lines, self._lines = self._lines, []
        if len(self._unwritten) >= MAX_BUFFER_BYTES:
            self._drop(len(lines))
            return
        if self._dropped:
            lines.insert(0, self._lost(self._dropped))
            self._dropped = 0
        if lines:
            self._unwritten += ("\n".join(lines) + "\n").encode(errors="backslashreplace")

    def _write(self, timeout_ms: int) -> None:
        """Write until the buffer is empty or the descriptor accepts nothing for the timeout."""
        while self._unwritten and self._ready.poll(timeout_ms):
            try:
                # Whole lines: a pipe keeps a chunk together beside those of other processes.
                end = self._unwritten.rfind(b"\n", 0, CHUNK_BYTES) + 1 or CHUNK_BYTES
                written = os.write(self._descriptor, self._unwritten[:end])
            except BlockingIOError:  # another process has filled the pipe
                return
            except OSError:  # the pipe is closed, or the disk is full
                self._drop(self._unwritten.count(b"\n"))
                self._unwritten.clear()
                return
            del self._unwritten[:written]

    def _drop(self, lines: int) -> None:
        self._dropped += lines
        metrics.lines_lost.inc(lines)
