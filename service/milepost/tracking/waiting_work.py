"""Waiting work: operations that become claimable at a time, after a pause or by their schedule."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.errors import Unavailable

if TYPE_CHECKING:
    from milepost.domain.ports import WorkStore
    from milepost.tracking.claimer import PendingWork

BATCH: Final = 1_000
"""Operations of one transaction."""
POLL_INTERVAL_S: Final = 1.0
"""Longest pause between two looks at the store, for operations that other replicas left waiting."""
MIN_INTERVAL_S: Final = 0.02
"""Shortest pause between two looks, however many operations begin to wait."""


class WaitingWork:
    """Makes waiting operations claimable when their time comes, by the clock of the database."""

    def __init__(self, store: WorkStore, work: PendingWork) -> None:
        """Wake the operations of `store`; publish their functions to `work`."""
        self._store = store
        self._work = work

    async def run(self) -> None:
        """Wake due operations until cancelled. A failure is logged, and the next look follows."""
        while True:
            pause = POLL_INTERVAL_S
            try:
                pause = await self.wake_due()
            except Unavailable as error:
                telemetry.log.debug("could not wake due operations", reason=error.reason)
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                telemetry.record_failure("wake due operations", error, expected=False)
            await asyncio.sleep(MIN_INTERVAL_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._work.has_waiting.wait()

    async def wake_due(self) -> float:
        """Make the due operations claimable; return the seconds until the next look."""
        self._work.has_waiting.clear()
        while True:
            due = await self._store.wake_due(BATCH)
            self._work.publish(*due.functions)
            if len(due.functions) < BATCH:
                break
        if due.next_due is None:
            return POLL_INTERVAL_S
        return min(max(due.next_due.total_seconds(), 0.0), POLL_INTERVAL_S)
