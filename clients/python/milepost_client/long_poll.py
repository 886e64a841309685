"""The long poll for the end of an operation: the service answers when it has ended."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

from milepost_client.errors import LimitReached
from milepost_client.operation import Operation
from milepost_client.pace import Backoff

MAX_WAIT_S: Final = 50.0
"""How long one call waits. The next one follows at once."""

MAX_PAUSE_S: Final = 5.0
"""Bound of the pause after an early answer: from a service that stops, or whose own maximum is
smaller."""

EARLY_SHARE: Final = 0.5
"""The share of the requested time before which an answer counts as early."""


async def until_terminal(
    wait: Callable[[float], Awaitable[Operation]], timeout: float | None
) -> Operation:
    """Return the operation once it is terminal, or as it stands when the timeout has passed.

    A limit that is reached meanwhile only delays the next call, until the service allows it.

    Args:
        wait: Calls the service, which waits for the given number of seconds.
        timeout: The time to wait, in seconds; None waits without a bound.
    """
    clock = asyncio.get_running_loop().time
    end = inf if timeout is None else clock() + timeout
    begun, asked = clock(), max(0.0, min(end - clock(), MAX_WAIT_S))
    operation = await wait(asked)
    backoff = Backoff(max_s=MAX_PAUSE_S)
    while not operation.status.is_terminal and (left := end - clock()) > 0:
        if clock() - begun < asked * EARLY_SHARE:
            await asyncio.sleep(min(backoff.pause_s(), left))
        begun, asked = clock(), max(0.0, min(end - clock(), MAX_WAIT_S))
        try:
            operation = await wait(asked)
        except LimitReached as limit:
            await asyncio.sleep(min(backoff.pause_s(limit), left))
    return operation
