"""The leases that workers hold: their renewals cost nothing.

A worker that holds many operations must renew each of them, whatever it may write otherwise. Such
renewals are bounded by the number of leases and by their length, so they are not charged to the
rate of writes. Everything else is charged: the first renewal that a replica sees after a claim on
another one, renewals in quicker succession, and those of operations that the worker does not hold.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.domain.operation import Operation

FREE_SHARE: Final = 0.125
"""Share of a lease that passes between two free renewals. Workers renew after a third of it; on a
busy machine a late renewal is followed by one in time."""
MAX_LEASES: Final = 100_000


@dataclass(slots=True)
class Lease:
    """A lease as this replica granted or renewed it last. Times are those of its clock."""

    length_s: float
    end_time: float
    free_time: float
    """Time from which a renewal is free."""


class HeldLeases:
    """Implementation of the port `LeaseRegister`."""

    def __init__(
        self, *, max_leases: int = MAX_LEASES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Remember at most `max_leases`; `clock` gives seconds that never go back."""
        self._max_leases = max_leases
        self._clock = clock
        self._leases: OrderedDict[tuple[str, str], Lease] = OrderedDict()

    def __len__(self) -> int:
        """Return how many leases are remembered."""
        return len(self._leases)

    def record(self, subject: str, operation: Operation) -> None:
        """See `LeaseRegister.record`."""
        key = (subject, operation.id)
        earlier = self._leases.pop(key, None)
        granted = operation.progress_time or operation.start_time
        if operation.lease_expire_time is None or granted is None:
            return
        now = self._clock()
        length_s = (operation.lease_expire_time - granted).total_seconds()
        free_time = earlier.free_time if earlier else now + length_s * FREE_SHARE
        self._leases[key] = Lease(length_s, now + length_s, free_time)
        while self._leases and (len(self) > self._max_leases or self._oldest_has_ended(now)):
            self._leases.popitem(last=False)

    def takes_free_renewal(self, subject: str, operation_id: str) -> bool:
        """Return whether a renewal is free now; if so, another one is not for a while."""
        lease = self._leases.get((subject, operation_id))
        now = self._clock()
        if lease is None or not lease.free_time <= now <= lease.end_time:
            return False
        lease.free_time = now + lease.length_s * FREE_SHARE
        return True

    def _oldest_has_ended(self, now: float) -> bool:
        return next(iter(self._leases.values())).end_time < now
