"""Waits that end as soon as a condition holds, and fail after a limit.

The limits are those of a quiet machine. They grow with the load of a busy one.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from tests.machine import slowdown

MAX_WAIT_S: Final = 10.0
_POLL_S: Final = 0.01
_EAGER_S: Final = 0.02
"""Time in which a condition is looked at in each turn of the loop; then every `_PAUSE_S`, because
a busy loop would take the processor from what it waits for."""
_PAUSE_S: Final = 0.001


def eventually(condition: Callable[[], Any], *, within: float, what: str) -> Any:
    """Return the value of `condition` once it is true; fail if it is not in time."""
    start = time.monotonic()
    while True:
        found = condition()
        if found:
            return found
        waited = time.monotonic() - start
        assert waited < within * slowdown(), f"not within {within} s, but {waited:.1f} s: {what}"
        time.sleep(_POLL_S)


async def until(
    condition: Callable[[], bool], patience: float = MAX_WAIT_S, *, every_turn: bool = False
) -> None:
    """Wait until the condition holds, while other tasks run.

    With `every_turn` no turn of the loop is left out: for what a test must see before other tasks.
    """
    start = time.monotonic()
    while not condition():
        waited = time.monotonic() - start
        assert waited < patience * slowdown(), f"the condition did not hold in {waited:.1f} s"
        await asyncio.sleep(0 if every_turn or waited < _EAGER_S else _PAUSE_S)
