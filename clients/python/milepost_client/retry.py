"""Retries beyond one call: which refusals are temporary, and the repetition until one is final."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import grpc

from milepost_client import errors
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
BROKEN: Final = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED}
"""The codes that a broken connection, or a proxy, reports besides UNAVAILABLE and INTERNAL."""
MAX_DEFECTS: Final = 5
"""Tries that may meet a defect of the service, which is not likely to pass."""
MAX_PAUSE_S: Final = 5.0

Answer = TypeVar("Answer")


def is_temporary(error: MilepostError) -> bool:
    """Return True if the same request may succeed later."""
    return isinstance(error, TEMPORARY) or (not error.reason and error.code in BROKEN)


async def until_final(send: Callable[[], Awaitable[Answer]], *, timeout_s: float) -> Answer:
    """Return the answer to a request that is sent again after every temporary refusal.

    Args:
        send: Sends the request, which has the same request_id every time.
        timeout_s: The time after which a temporary refusal is final too.

    Raises:
        MilepostError: The request was refused for good, or for too long.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + timeout_s
    backoff = Backoff(max_s=MAX_PAUSE_S)
    defects = 0
    while True:
        try:
            return await send()
        except MilepostError as error:
            defects += isinstance(error, errors.InternalError) and bool(error.reason)
            pause_s = backoff.pause_s(error)
            if not is_temporary(error) or defects > MAX_DEFECTS or clock() + pause_s > end:
                raise
        await asyncio.sleep(pause_s)
