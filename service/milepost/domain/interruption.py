"""Interruptions: the reasons for which a worker must stop working on an operation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from milepost.domain.operation import Status
from milepost.domain.transitions import ENDS_OF_ATTEMPTS, EXPIRED

if TYPE_CHECKING:
    from milepost.domain.operation import OperationId, UnknownStatus


class InterruptionKind(StrEnum):
    """Cause of an interruption."""

    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    LEASE_LOST = "LEASE_LOST"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    """The worker still holds the operation, and is asked to end it."""


_BY_ERROR = {
    EXPIRED: InterruptionKind.EXPIRED,
    **dict.fromkeys(ENDS_OF_ATTEMPTS, InterruptionKind.LEASE_LOST),
}
"""Interruptions by the code of the error with which the service fails operations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSnapshot:
    """The part of an operation that decides whether its worker must stop."""

    id: OperationId
    status: Status | UnknownStatus
    revision: int
    attempt: int
    error_code: str | None
    """The code of the first error of a failed operation; else None."""
    is_cancel_requested: bool = False

    def interruption(self, attempt: int | None) -> InterruptionKind | None:
        """Return why the worker of this attempt must or should stop, or None if it need not.

        None as the attempt means any attempt. An operation that its worker has completed or failed
        is not interrupted.
        """
        if self.status is Status.CANCELLED:
            return InterruptionKind.CANCELLED
        if self.status is Status.FAILED and self.error_code in _BY_ERROR:
            return _BY_ERROR[self.error_code]
        if self.status is Status.PENDING and attempt is not None:
            return InterruptionKind.LEASE_LOST
        if attempt not in (None, self.attempt):
            return InterruptionKind.LEASE_LOST
        if self.status is Status.PROCESSING and self.is_cancel_requested:
            return InterruptionKind.CANCEL_REQUESTED
        return None
