"""Waits that end as soon as a condition holds, and fail after a limit."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

QUEUE_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.01


def eventually(condition: Callable[[], Any], *, within: float, what: str) -> Any:
    """Return the value of `condition` once it is true; fail if it is not in time."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(_POLL_S)


async def until(condition: Callable[[], bool], patience: float = QUEUE_TIMEOUT_S) -> None:
    """Wait until the condition holds, while other tasks run."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        await asyncio.sleep(0)
