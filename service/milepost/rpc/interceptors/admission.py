"""Admission: whether this replica takes calls at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from milepost.domain.errors import Draining
from milepost.rpc.interceptors.auth import is_public

if TYPE_CHECKING:
    from milepost.rpc.interceptors.chain import Call, Context, Proceed


class Admission:
    """Turns calls away once the replica is draining; health goes on answering."""

    def __init__(self) -> None:
        """Take calls."""
        self._draining = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def close(self) -> None:
        """Take no more calls; those that run go on."""
        self._draining = True

    async def idle(self) -> None:
        """Return when no call runs that was let in; whoever watches health may go on."""
        await self._idle.wait()

    async def around(self, proceed: Proceed, call: Call, request: Any, context: Context) -> Any:
        """Let the call in, or say that another replica will answer it."""
        if is_public(call.method):
            return await proceed(call, request, context)
        if self._draining:
            raise Draining
        self._running += 1
        self._idle.clear()
        try:
            return await proceed(call, request, context)
        finally:
            self._running -= 1
            if self._running == 0:
                self._idle.set()
