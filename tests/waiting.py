"""Waiting for what is to come, and no longer than that."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

QUEUE_TIMEOUT_S: Final = 10.0
_LOOK_S: Final = 0.01


def eventually(condition: Callable[[], Any], *, within: float, what: str) -> Any:
    """What `condition` returns as soon as that is true; a failure if it is not in time."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(_LOOK_S)


async def until(condition: Callable[[], bool], patience: float = QUEUE_TIMEOUT_S) -> None:
    """The condition holds; other tasks run meanwhile."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0)
