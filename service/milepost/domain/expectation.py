"""The next step of an active operation and its deadline: they show why it seems stuck."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from milepost.domain.operation import Status

if TYPE_CHECKING:
    from datetime import datetime

    from milepost.domain.operation import Operation


class NextStep(StrEnum):
    """Step that an active operation waits for."""

    CLAIM = "CLAIM"
    """A worker claims or starts the operation, or it expires."""
    RENEWAL = "RENEWAL"
    """The worker renews the lease or ends the operation, or the lease is lost."""
    END = "END"
    """The worker ends the operation, or the sweeper acts: a requested cancel, the run_timeout or
    the expire_time is due."""


class Expectation(NamedTuple):
    """The next step of an operation, and the time at which the sweeper acts without it."""

    step: NextStep
    deadline: datetime


def expectation(operation: Operation) -> Expectation | None:
    """Return the next step of an active operation, or None for a terminal or an unknown status."""
    if operation.status is Status.PENDING:
        return Expectation(NextStep.CLAIM, _earliest(operation, operation.queue_expire_time))
    if operation.status is not Status.PROCESSING:
        return None
    end = _earliest(operation, operation.run_expire_time, operation.cancel_expire_time)
    lease = operation.lease_expire_time
    if lease is not None and lease < end:
        return Expectation(NextStep.RENEWAL, lease)
    return Expectation(NextStep.END, end)


def _earliest(operation: Operation, *times: datetime | None) -> datetime:
    return min(time for time in (operation.expire_time, *times) if time is not None)
