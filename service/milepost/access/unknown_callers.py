"""A bound of the calls whose credential has not been good before, in front of all work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from milepost import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PER_SECOND: Final = 1_000
"""Calls of unknown callers that the service looks at. Each costs about three empty calls."""


class UnknownCallers:
    """Admits a bounded number of calls of unknown callers in each second.

    Looking at a credential, and logging its refusal, costs more than to answer that the service is
    overloaded. Callers whose credential has been good before are admitted always.
    """

    def __init__(
        self,
        is_known: Callable[[str | bytes | None], bool],
        *,
        per_second: int = MAX_PER_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask `is_known` about each credential; None is that of a call without one."""
        self._is_known = is_known
        self._per_second = per_second
        self._clock = clock
        self._second = 0
        self._count = 0

    def admit(self, credential: str | bytes | None) -> bool:
        """Return True if the service may look at a call with this credential."""
        if self._is_known(credential):
            return True
        second = int(self._clock())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= self._per_second:
            return True
        telemetry.record_limited("unknown_callers")
        return False
