"""Waiting for the end of an operation. Polls for now; a later release will watch instead."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

from milepost_client.errors import LimitReached
from milepost_client.operation import Operation
from milepost_client.pace import growing_pauses, seconds

FIRST_PAUSE: Final = 0.05
"""In seconds: short work is noticed soon. The longest pause is the operation's `retry_after`."""

LONGEST_PAUSE: Final = 3600.0
"""In seconds: the largest `retry_after` there is."""


async def until_terminal(
    read: Callable[[], Awaitable[Operation]], timeout: float | None
) -> Operation:
    """Return the operation once it is terminal, or as it stands when the timeout has passed.

    Reads at once, and a last time when the timeout passes. A limit that is reached on the way is
    no reason to give up: the next look comes when the service asks for it.
    """
    clock = asyncio.get_running_loop().time
    end = inf if timeout is None else clock() + timeout
    operation, least = await read(), 0.0
    for growing in growing_pauses(first=FIRST_PAUSE, most=LONGEST_PAUSE):
        left = end - clock()
        if operation.status.is_terminal or left <= 0:
            break
        pause = max(min(growing, seconds(operation.retry_after)), least)
        await asyncio.sleep(min(pause, left))
        try:
            operation, least = await read(), 0.0
        except LimitReached as limit:
            least = seconds(limit.retry_after or 0.0)
    return operation
