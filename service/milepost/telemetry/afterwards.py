"""What is told of calls once they have gone on: at the end of a turn of the event loop, in one go.

Counting a call and writing its line takes a few microseconds. In the middle of the call it takes
three times as many: each time the processor has to fetch the code again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from milepost.telemetry.tracing import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.telemetry.tracing import Trace


class Afterwards:
    """Does things in the order in which they were asked for, when this turn is over."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._tasks: deque[tuple[Trace | None, Callable[..., object], tuple[object, ...]]] = deque()
        self._planned: asyncio.AbstractEventLoop | None = None

    def do(self, what: Callable[..., object], *arguments: object) -> None:
        """Call `what`, in the trace of the current call; outside of an event loop do it at once."""
        self._tasks.append((current.get(), what, arguments))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.finish()
            return
        if loop is not self._planned:
            self._planned = loop
            loop.call_soon(self.finish)

    def finish(self) -> None:
        """Do what is left."""
        self._planned = None
        before = current.get()
        try:
            while self._tasks:
                trace, what, arguments = self._tasks.popleft()
                current.set(trace)
                what(*arguments)
        finally:
            current.set(before)


afterwards: Final = Afterwards()
