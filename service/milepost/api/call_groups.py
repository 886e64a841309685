"""Groups of concurrent unary calls, which go on to the servicers together.

gRPC and HTTP hand over concurrent calls one by one, some turns of the event loop apart. A group of
them shares a batch in front of the database, and runs the same code while it is in the caches of
the processor.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from milepost.access.running_calls import RunningCalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from milepost.api.call import ApiCall

    CallNext = Callable[..., Awaitable[Any]]

MIN_GROUP: Final = 16
"""Calls that complete a group, even with more callers: the others form the next group meanwhile."""
MAX_GROUP: Final = 256
MAX_QUIET_TURNS: Final = 12
"""Turns of the event loop without another call after which a group is complete."""
COUNT_INTERVAL: Final = 64
"""Groups between two that wait until no more calls arrive, so as to count the callers."""


class CallGroups:
    """Releases concurrent calls in groups. Create it on a running event loop.

    There is no timer that would make a quiet service wait: the loop takes further turns as long as
    they bring in calls. A single call goes on at once.
    """

    def __init__(self) -> None:
        """Start without calls."""
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []
        self._inside = RunningCalls()
        self._callers = 1
        """Number of concurrent callers, including those that gRPC has not handed over yet."""
        self._groups_since_count = 0
        self._is_turning = False
        self._turns_left = 0

    async def intercept(self, call_next: CallNext, call: ApiCall, *rest: Any) -> Any:
        """Await `call_next(call, *rest)` with its group. A call that may wait belongs to none."""
        if call.waits:
            return await call_next(call, *rest)
        self._inside.enter()
        try:
            if not self._completes_group():
                await self._join_group()
            response = await call_next(call, *rest)
            if self._inside.count > 1:
                # One more turn of the loop: all responses of a group are made before one is sent.
                await asyncio.sleep(0)
            return response
        finally:
            self._inside.leave()

    def _completes_group(self) -> bool:
        """Release the group if this call completes it."""
        self._callers = max(self._callers, self._inside.count)
        if len(self._waiting) + 1 < self._group_size():
            return False
        self._release()
        return True

    def _group_size(self) -> int:
        """Return the number of calls that complete a group."""
        if self._is_counting():
            return MAX_GROUP
        # One half of many callers: the other half arrives while this one is in the database.
        return min(self._callers, max(MIN_GROUP, self._callers // 2), MAX_GROUP)

    def _is_counting(self) -> bool:
        return self._groups_since_count >= COUNT_INTERVAL and self._callers > 1

    def _join_group(self) -> asyncio.Future[None]:
        """Return a future that ends when the group is released."""
        place = self._loop.create_future()
        self._waiting.append(place)
        self._turns_left = MAX_QUIET_TURNS
        if not self._is_turning:
            self._is_turning = True
            self._loop.call_soon(self._turn)
        return place

    def _turn(self) -> None:
        """Take another turn of the loop if one of the last turns has brought in a call."""
        self._turns_left -= 1
        self._is_turning = bool(self._waiting) and self._turns_left > 0
        if self._is_turning:
            os.sched_yield()  # to the threads of gRPC that read from the sockets
            self._loop.call_soon(self._turn)
        elif self._waiting:
            self._release()

    def _release(self) -> None:
        if self._is_counting():
            self._callers = self._inside.count
            self._groups_since_count = 0
        self._groups_since_count += 1
        group, self._waiting = self._waiting, []
        for place in group:
            if not place.done():  # not cancelled meanwhile
                place.set_result(None)
