"""Why a worker must stop in the middle of its work, without having asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from milepost.domain.operation import Status

if TYPE_CHECKING:
    from milepost.domain.operation import OperationId, UnknownStatus


class InterruptionKind(StrEnum):
    """What took the operation away from its worker."""

    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    LEASE_LOST = "LEASE_LOST"


_BY_ERROR = {kind.value: kind for kind in (InterruptionKind.EXPIRED, InterruptionKind.LEASE_LOST)}
"""The codes of the errors that the service itself fails operations with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSnapshot:
    """How an operation stands, as far as it concerns whoever works on it."""

    id: OperationId
    status: Status | UnknownStatus
    revision: int
    attempt: int
    error_code: str | None
    """The code of the first error of a failed operation."""

    def interruption(self, attempt: int | None) -> InterruptionKind | None:
        """Say why the worker of this attempt (or of any) must stop, or nothing if it need not.

        An operation that its worker has completed or failed is over, but nobody interrupted it.
        """
        if self.status is Status.CANCELLED:
            return InterruptionKind.CANCELLED
        if self.status is Status.FAILED and self.error_code in _BY_ERROR:
            return _BY_ERROR[self.error_code]
        if self.status is Status.PENDING and attempt is not None:
            return InterruptionKind.LEASE_LOST
        if attempt not in (None, self.attempt):
            return InterruptionKind.LEASE_LOST
        return None
