"""Retries beyond one call: which refusals are temporary, and the repetition until one is final."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, TypeVar

from milepost_client import errors
from milepost_client.disruption import BROKEN, is_refusal
from milepost_client.errors import MilepostError
from milepost_client.pace import Backoff

TEMPORARY: Final = (
    errors.Unavailable,
    errors.DeadlineExceeded,
    errors.RateLimited,
    errors.LostRace,
    errors.InternalError,
)
"""The refusals after which the same request may succeed."""
MAX_DEFECTS: Final = 5
"""Tries that may meet a defect of the service, which is not likely to pass."""
MAX_PAUSE_S: Final = 5.0
END_TIMEOUT_S: Final = 300.0
"""How long a block tries its end again, and how long anyone does after unexplained refusals."""

Answer = TypeVar("Answer")


def is_temporary(error: MilepostError) -> bool:
    """Return True if the same request may succeed later."""
    return isinstance(error, TEMPORARY) or is_unexplained(error)


def is_unexplained(error: MilepostError) -> bool:
    """Return True for the refusal of a proxy or of gRPC that may be temporary or not.

    A proxy refuses with the same codes a request that is too large and one that came too early.
    """
    is_vague = error.code in BROKEN or type(error) is errors.LimitReached
    return is_vague and not is_refusal(error)


async def until_final(
    send: Callable[[], Awaitable[Answer]], *, timeout_s: float, is_large: bool = False
) -> Answer:
    """Return the answer to a request that is sent again after every temporary refusal.

    Args:
        send: Sends the request, which has the same request_id every time.
        timeout_s: The time after which a temporary refusal is final too. It is at most
            `END_TIMEOUT_S` for unexplained refusals in a row.
        is_large: A limit without a reason is that of the size, and final.

    Raises:
        MilepostError: The request was refused for good, or for too long.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + timeout_s
    backoff = Backoff(max_s=MAX_PAUSE_S)
    defects, unexplained_end = 0, inf
    while True:
        try:
            return await send()
        except MilepostError as error:
            defects += isinstance(error, errors.InternalError) and bool(error.reason)
            pause_s = backoff.pause_s(error)
            is_final = not is_temporary(error) or defects > MAX_DEFECTS
            is_too_large = is_large and type(error) is errors.LimitReached
            unexplained_end = (
                min(unexplained_end, clock() + END_TIMEOUT_S) if is_unexplained(error) else inf
            )
            if is_final or is_too_large or clock() + pause_s > min(end, unexplained_end):
                raise
        await asyncio.sleep(pause_s)
