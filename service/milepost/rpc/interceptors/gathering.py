"""Gathering: unary calls that arrive together go on together.

gRPC hands over one call after the other, some turns of the event loop apart. Each would find the
code of all that follows gone from the processor's caches, and the store with nothing else to do in
the same statement. A group finds both: what is done once for all of them is done in one go.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from milepost.rpc.interceptors.admission import waits
from milepost.rpc.interceptors.running_calls import Running

if TYPE_CHECKING:
    from milepost.rpc.interceptors.chain import Call, CallNext, Context

ENOUGH: Final = 16
"""Calls that are a group even where there are more: the rest may form the next one meanwhile."""
LARGEST: Final = 256
"""Calls of one group at most."""
PATIENT_TURNS: Final = 12
"""Turns of the event loop without another call after which a group is complete."""
COUNTED_EVERY: Final = 64
"""How many groups there are for one that is let grow until nobody comes any more."""


class Gathering:
    """Lets calls on in groups. Create it on a running event loop.

    There is no timer that would make a quiet service wait: the loop takes another turn, and
    another, as long as that brings in calls. Whoever is alone goes on at once; after a crowd has
    left, as soon as that was seen.
    """

    def __init__(self) -> None:
        """Begin with nobody here."""
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []
        self._inside = Running()
        self._crowd = 1
        """How many calls there are, those included that gRPC has not handed over yet."""
        self._uncounted = 0
        """Groups since the crowd was counted."""
        self._turning = False
        self._turns_left = 0

    async def intercept(
        self, call_next: CallNext, call: Call, request: Any, context: Context
    ) -> Any:
        """Let the call on with its group. One that may take hours belongs to none."""
        if waits(call):
            return await call_next(call, request, context)
        self._inside.enter()
        try:
            if not self._completes_a_group():
                await self._group()
            answer = await call_next(call, request, context)
            if self._inside.count > 1:
                # Another turn of the loop: the answers of a group are made first, then sent.
                await asyncio.sleep(0)
            return answer
        finally:
            self._inside.leave()

    def _completes_a_group(self) -> bool:
        """Let the others on if this is the call that they have waited for."""
        self._crowd = max(self._crowd, self._inside.count)
        if len(self._waiting) + 1 < self._enough():
            return False
        self._let_on()
        return True

    def _enough(self) -> int:
        """Return how many calls make a group complete, however many there are."""
        if self._counts():
            return LARGEST
        # Of many one half: while that is in the database the other half arrives. Of few all.
        return min(self._crowd, max(ENOUGH, self._crowd // 2), LARGEST)

    def _counts(self) -> bool:
        """Whether this group is to tell how large the crowd is. Nobody waits for it alone."""
        return self._uncounted >= COUNTED_EVERY and self._crowd > 1

    def _group(self) -> asyncio.Future[None]:
        """Return what is done when the group is complete."""
        place = self._loop.create_future()
        self._waiting.append(place)
        self._turns_left = PATIENT_TURNS
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)
        return place

    def _turn(self) -> None:
        """Take another turn of the loop if one of the last has brought in a call."""
        self._turns_left -= 1
        self._turning = bool(self._waiting) and self._turns_left > 0
        if self._turning:
            os.sched_yield()  # to the threads of gRPC that read from the sockets
            self._loop.call_soon(self._turn)
        elif self._waiting:
            self._let_on()

    def _let_on(self) -> None:
        if self._counts():
            self._crowd = self._inside.count
            self._uncounted = 0
        self._uncounted += 1
        group, self._waiting = self._waiting, []
        for place in group:
            if not place.done():  # given up
                place.set_result(None)
