"""Why is it stuck: what must happen next to an active operation, and by when."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from milepost.domain.operation import Status

if TYPE_CHECKING:
    from datetime import datetime

    from milepost.domain.operation import Operation


class NextStep(StrEnum):
    """What somebody must do next."""

    CLAIM = "CLAIM"
    """A worker claims or starts it, or it expires."""
    RENEWAL = "RENEWAL"
    """Its worker renews the lease or ends the work, or the lease is lost."""
    END = "END"
    """Its worker ends the work, or it is failed with EXPIRED."""


class Expectation(NamedTuple):
    """The next step of an operation, and the instant by which it is taken or the sweeper acts."""

    step: NextStep
    deadline: datetime


def expectation(operation: Operation) -> Expectation | None:
    """Return what must happen next to an active operation; nothing to one that has ended."""
    if operation.status is Status.PENDING:
        return Expectation(NextStep.CLAIM, operation.expire_time)
    if operation.status is not Status.PROCESSING:
        return None
    lease = operation.lease_expire_time
    if lease is not None and lease < operation.expire_time:
        return Expectation(NextStep.RENEWAL, lease)
    return Expectation(NextStep.END, operation.expire_time)
