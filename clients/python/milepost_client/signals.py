"""Signals that stop a worker, in a program that leaves them to it."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on the event loop at the first SIGTERM or SIGINT inside the block.

    The earlier handlers are restored before: the second signal ends the program as usual.

    Raises:
        ValueError: This is not the main thread of the process, which alone receives signals.
    """
    loop = asyncio.get_running_loop()
    earlier: dict[signal.Signals, Any] = {}

    def restore() -> None:
        while earlier:
            number, handler = earlier.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def handle(_number: int, _frame: FrameType | None) -> None:
        restore()
        loop.call_soon_threadsafe(stop)

    try:
        for number in SIGNALS:
            earlier[number] = signal.signal(number, handle)
        yield
    finally:
        restore()
