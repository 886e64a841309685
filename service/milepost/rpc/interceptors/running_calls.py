"""How many calls are inside of a link."""

from __future__ import annotations

import asyncio


class Running:
    """Counts calls, and knows the moment there are none."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count = 0
        self._none: asyncio.Event | None = None

    def enter(self) -> None:
        """One more is inside."""
        self.count += 1

    def leave(self) -> None:
        """One less is inside."""
        self.count -= 1
        if not self.count and self._none is not None:
            self._none.set()

    async def idle(self) -> None:
        """Return when no call is inside."""
        while self.count:
            self._none = self._none or asyncio.Event()
            self._none.clear()
            await self._none.wait()
