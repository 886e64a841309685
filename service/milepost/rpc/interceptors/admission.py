"""Admission: whether this replica takes calls at all, and how many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.domain.errors import Draining, Overloaded
from milepost.rpc.interceptors.auth import is_public
from milepost.rpc.interceptors.running_calls import Running
from milepost.rpc.prefer_header import HEADER

if TYPE_CHECKING:
    from milepost.rpc.interceptors.chain import Call, CallNext, Context


CALLS_MAX: Final = 1_000
WAITING_MAX: Final = 20_000

LONG: Final = frozenset(
    {
        "milepost.v1.OperationService/WaitOperation",
        "milepost.v1.WorkerService/ClaimOperations",
        "google.longrunning.Operations/WaitOperation",
    }
)
"""Unary calls that wait for something to happen."""


def waits(call: Call) -> bool:
    """Tell whether a call may wait for something to happen, instead of just running."""
    return call.streams or call.method in LONG or HEADER in call.metadata


class Admission:
    """Turns calls away once the replica is draining or too many run; health goes on answering.

    Calls that run and calls that wait are counted apart. Ten thousand that wait for a change cost
    memory and nothing else; a thousand that run are more than one process can do in a second, and
    whoever came after them would wait in vain.
    """

    def __init__(self, *, calls_max: int = CALLS_MAX, waiting_max: int = WAITING_MAX) -> None:
        """Take at most so many calls at once that run, and so many streams and calls that wait."""
        self._draining = False
        self._calls_max = calls_max
        self._waiting_max = waiting_max
        self._waiting = 0
        self.running = Running()
        """Those that were let in. Whoever watches health is not among them, and may go on."""

    def close(self) -> None:
        """Take no more calls; those that run go on."""
        self._draining = True

    async def intercept(
        self, call_next: CallNext, call: Call, request: Any, context: Context
    ) -> Any:
        """Let the call in, or say at once that another replica, or a later try, will be served."""
        if is_public(call.method):
            return await call_next(call, request, context)
        if self._draining:
            raise Draining
        waiting = waits(call)
        if waiting:
            if self._waiting >= self._waiting_max:
                telemetry.record_limited("waiting_calls")
                raise Overloaded
        elif self.running.count - self._waiting >= self._calls_max:
            telemetry.record_limited("calls")
            raise Overloaded
        self.running.enter()
        self._waiting += waiting
        try:
            return await call_next(call, request, context)
        finally:
            self._waiting -= waiting
            self.running.leave()
