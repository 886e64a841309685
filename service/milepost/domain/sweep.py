"""Sweeps: the transitions that the service makes by itself when a time has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from milepost.domain.transitions import (
    EXPIRED,
    LEASE_LOST,
    QUEUE_TIMEOUT,
    RUN_TIMEOUT,
    TABLE,
    Transition,
)

if TYPE_CHECKING:
    from milepost.domain.operation import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One cause for which operations are changed or purged, and what happens to them."""

    name: str
    """In metrics and logs."""
    transition: Transition
    reason: str
    """Of the event."""
    code: str | None = None
    """Of the error that the operation or its attempt gets."""

    @property
    def sources(self) -> frozenset[Status]:
        """Statuses of the operations that are changed."""
        if self.transition is Transition.CANCEL:  # only where it was requested
            return TABLE[Transition.REQUEST_CANCEL].sources
        return TABLE[self.transition].sources


RELEASE: Final = Sweep(
    name="release", transition=Transition.RELEASE, reason="the lease ran out", code=LEASE_LOST
)
ABANDON: Final = Sweep(
    name="abandon",
    transition=Transition.ABANDON,
    reason="the lease of the last attempt ran out",
    code=LEASE_LOST,
)
CANCEL_LOST: Final = Sweep(
    name="cancel_lost",
    transition=Transition.CANCEL,
    reason="the lease ran out after the cancel was requested",
)
CANCEL: Final = Sweep(
    name="cancel",
    transition=Transition.CANCEL,
    reason="the grace of the requested cancel is over",
)
RETRY: Final = Sweep(
    name="retry",
    transition=Transition.RETRY,
    reason="the attempt took longer than its run_timeout",
    code=RUN_TIMEOUT,
)
RUN_OUT: Final = Sweep(
    name="run_out",
    transition=Transition.ABANDON,
    reason="the last attempt took longer than its run_timeout",
    code=RUN_TIMEOUT,
)
TIME_OUT: Final = Sweep(
    name="time_out",
    transition=Transition.TIME_OUT,
    reason="no worker claimed the operation within its queue_timeout",
    code=QUEUE_TIMEOUT,
)
EXPIRE: Final = Sweep(
    name="expire",
    transition=Transition.EXPIRE,
    reason="the operation ran past its expire_time",
    code=EXPIRED,
)
PURGE: Final = Sweep(
    name="purge",
    transition=Transition.PURGE,
    reason="the operation was past its expire_time",
)

SWEEPS: Final = (
    EXPIRE,
    CANCEL,
    CANCEL_LOST,
    ABANDON,
    RELEASE,
    RUN_OUT,
    RETRY,
    TIME_OUT,
    PURGE,
)
"""Every sweep; one that ends an operation before the one that gives it back."""
