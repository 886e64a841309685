"""What is told of calls once they have gone on: at the end of a turn of the event loop, in one go.

Writing the line of a change takes a few microseconds. In the middle of the call it takes
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


class EndOfTurn:
    """Calls something when a turn of the event loop is over, once however often it is planned."""

    def __init__(self, do: Callable[[], object], *, outside: Callable[[], object]) -> None:
        """Call `do` at the end of a turn, and `outside` at once where no event loop runs."""
        self._do = do
        self._outside = outside
        self._planned: asyncio.AbstractEventLoop | None = None

    def plan(self, seconds: float = 0.0) -> None:
        """Have it called when this turn is over, or so many seconds later."""
        # Not compared with the loop that runs: asking for that is a system call (Python 3.11).
        if self._planned is not None and not self._planned.is_closed():
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._outside()
            return
        self._planned = loop
        if seconds:
            loop.call_later(seconds, self._run)
        else:
            loop.call_soon(self._run)

    def _run(self) -> None:
        self._planned = None
        self._do()


class Afterwards:
    """Does things in the order in which they were asked for, when this turn is over."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._tasks: deque[tuple[Trace | None, Callable[..., object], tuple[object, ...]]] = deque()
        self._turn = EndOfTurn(self.finish, outside=self.finish)

    def do(self, what: Callable[..., object], *arguments: object) -> None:
        """Call `what`, in the trace of the current call; outside of an event loop do it at once."""
        self._tasks.append((current.get(), what, arguments))
        self._turn.plan()

    def finish(self) -> None:
        """Do what is left."""
        before = current.get()
        try:
            while self._tasks:
                trace, what, arguments = self._tasks.popleft()
                current.set(trace)
                what(*arguments)
        finally:
            current.set(before)


afterwards: Final = Afterwards()
