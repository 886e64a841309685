"""A count of running calls."""

from __future__ import annotations

import asyncio
import contextlib


class RunningCalls:
    """Counts running calls, and wakes those that wait for the end of the last one."""

    def __init__(self) -> None:
        """Start with no call."""
        self.count = 0
        self._ended: asyncio.Event | None = None

    def enter(self) -> None:
        """Count a call that begins."""
        self.count += 1

    def leave(self) -> None:
        """Count a call that ends."""
        self.count -= 1
        if not self.count and self._ended is not None:
            self._ended.set()

    async def idle(self) -> None:
        """Return when no call is running."""
        while self.count:
            self._ended = self._ended or asyncio.Event()
            self._ended.clear()
            await self._ended.wait()

    async def idle_within(self, timeout_s: float) -> bool:
        """Return True when no call is running, and False if calls still run after the timeout."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.idle(), timeout_s)
        return not self.count
