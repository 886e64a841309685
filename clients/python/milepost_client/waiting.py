"""Waiting for the end of an operation: the service answers when it has come."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

from milepost_client.errors import LimitReached
from milepost_client.operation import Operation
from milepost_client.pace import growing_pauses, seconds

LONGEST_WAIT: Final = 50.0
"""In seconds: how long one call waits. The next one follows at once."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 5.0
"""Bounds, in seconds, of the pause after an answer that came before its time: from a service that
stops, or that admits of shorter waits only."""

EARLY: Final = 0.5
"""The share of the time asked for before which an answer is early."""


async def until_terminal(
    wait: Callable[[float], Awaitable[Operation]], timeout: float | None
) -> Operation:
    """Return the operation once it is terminal, or as it stands when the timeout has passed.

    A limit that is reached on the way is no reason to give up: the next look comes when the
    service asks for it.

    Args:
        wait: Asks the service to wait for so many seconds.
        timeout: In seconds; None waits as long as it takes.
    """
    clock = asyncio.get_running_loop().time
    end = inf if timeout is None else clock() + timeout
    begun, asked = clock(), max(0.0, min(end - clock(), LONGEST_WAIT))
    operation = await wait(asked)
    pauses = growing_pauses(first=FIRST_PAUSE, most=LONGEST_PAUSE)
    while not operation.status.is_terminal and (left := end - clock()) > 0:
        if clock() - begun < asked * EARLY:
            await asyncio.sleep(min(next(pauses), left))
        begun, asked = clock(), max(0.0, min(end - clock(), LONGEST_WAIT))
        try:
            operation = await wait(asked)
        except LimitReached as limit:
            pause = max(seconds(limit.retry_after or 0.0), next(pauses))
            await asyncio.sleep(min(pause, left))
    return operation
