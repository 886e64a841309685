"""A watch of one operation until it ends."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AbstractContextManager
from datetime import timedelta

from milepost.cli.display import Show
from milepost.cli.errors import CommandError, ExitCode
from milepost_client import Milepost, Operation, Status


async def follow(
    client: Milepost,
    operation_id: str,
    display: AbstractContextManager[Show],
    *,
    within: timedelta | None = None,
) -> Operation:
    """Show every change of the operation at once, and return the last state seen.

    `within` limits the watch, not the read of an operation that was not seen in time.
    """
    seen: Operation | None = None
    with display as show:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if within is None else within.total_seconds()):
                async for seen in client.watch(operation_id):
                    show(seen)
        if seen is None:
            seen = await client.get(operation_id)
            show(seen)
        return seen


def require_completed(operation: Operation, within: timedelta | None = None) -> None:
    """Fail unless the operation is COMPLETED."""
    if operation.status is Status.COMPLETED:
        return
    if not operation.status.is_terminal:
        waited = "" if within is None else f" after {within.total_seconds():g} s"
        raise CommandError(
            f"operation {operation.id} is still {operation.status}{waited}",
            reason="STILL_RUNNING",
            code="DEADLINE_EXCEEDED",
            exit_code=ExitCode.UNAVAILABLE,
            operation_id=operation.id,
            status=operation.status,
        )
    causes = "; ".join(f"{error.code}: {error.message}" for error in operation.errors)
    causes = causes or operation.cancel_reason or ""
    raise CommandError(
        f"operation {operation.id} is {operation.status}" + (f": {causes}" if causes else ""),
        reason=f"OPERATION_{operation.status}",
        code="CANCELLED" if operation.status is Status.CANCELLED else "ABORTED",
        exit_code=ExitCode.ENDED_BADLY,
        operation_id=operation.id,
        status=operation.status,
    )
