"""Following one operation to its end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Final

from milepost.cli.display import Show
from milepost.cli.errors import CommandError, ExitCode
from milepost_client import LimitReached, Milepost, Operation, Status

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0
"""Between two looks at an operation in which nothing happens."""


async def changes(
    client: Milepost,
    operation_id: str,
    *,
    within: timedelta | None = None,
    pause: float = FIRST_PAUSE_S,
) -> AsyncIterator[Operation]:
    """Yield the operation as it stands, and again after every change that is seen.

    Ends after the terminal one, or when the time is up. Polls, and so may see several changes as
    one; what becomes of the operation is never missed.
    """
    clock = asyncio.get_running_loop().time
    end = math.inf if within is None else clock() + within.total_seconds()
    revision, wait = 0, pause
    while True:
        try:
            operation = await client.get(operation_id)
        except LimitReached as limit:
            wait = max(wait, limit.retry_after.total_seconds() if limit.retry_after else wait)
        else:
            wait = min(2 * wait, LONGEST_PAUSE_S) if operation.revision == revision else pause
            if operation.revision != revision:
                revision = operation.revision
                yield operation
            if operation.status.is_terminal:
                return
        if revision and clock() >= end:
            return
        await asyncio.sleep(min(wait, end - clock()) if revision else wait)


async def follow(
    client: Milepost,
    operation_id: str,
    display: AbstractContextManager[Show],
    *,
    within: timedelta | None = None,
    pause: float = FIRST_PAUSE_S,
) -> Operation:
    """Show every change of the operation, and return it as it was last seen."""
    with display as show:
        async for operation in changes(client, operation_id, within=within, pause=pause):
            show(operation)
    return operation


def require_completed(operation: Operation, within: timedelta | None = None) -> None:
    """Fail unless the operation has come to a good end."""
    if operation.status is Status.COMPLETED:
        return
    if not operation.status.is_terminal:
        waited = within.total_seconds() if within else 0
        raise CommandError(
            f"operation {operation.id} is still {operation.status} after {waited:g} s",
            reason="STILL_RUNNING",
            code="DEADLINE_EXCEEDED",
            exit_code=ExitCode.UNAVAILABLE,
        )
    causes = "; ".join(f"{error.code}: {error.message}" for error in operation.errors)
    raise CommandError(
        f"operation {operation.id} is {operation.status}" + (f": {causes}" if causes else ""),
        reason=f"OPERATION_{operation.status}",
        code="CANCELLED" if operation.status is Status.CANCELLED else "ABORTED",
        exit_code=ExitCode.ENDED_BADLY,
    )
