"""Status changes of an operation, and the operation as it was after one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from milepost.domain.operation import Status
from milepost.domain.transitions import TABLE, TERMINAL, Transition

if TYPE_CHECKING:
    from datetime import datetime

    from milepost.domain.operation import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """One change of the status, as recorded in its event."""

    revision: int
    transition: Transition
    time: datetime
    attempt: int
    """The attempt of the operation after the change."""


def is_terminal(operation: Operation) -> bool:
    """Return whether the operation has ended: it can only be purged."""
    return operation.status in TERMINAL


def may_have_missed(operation: Operation, *, revision: int, attempt: int | None) -> bool:
    """Return whether a reader may have missed status changes.

    Consecutive revisions have no status change between them. Neither has one attempt: an operation
    that returns to an earlier status is started again, with another attempt.

    Args:
        operation: as it is now.
        revision: the last revision that the reader knows.
        attempt: the attempt at that revision; None if unknown.
    """
    return operation.revision > revision + 1 and operation.attempt != attempt


def operation_after(operation: Operation, change: StatusChange) -> Operation:
    """Return the operation as it was after an earlier status change, as far as that is known.

    Status, revision, attempt and start_time are exact, and so is everything that never changes.
    Progress, worker and lease are absent, because events do not record them.
    """
    status = TABLE[change.transition].target or operation.status
    return replace(
        operation,
        status=status,
        revision=change.revision,
        attempt=change.attempt,
        start_time=change.time if status is Status.PROCESSING else None,
        progress=None,
        progress_message=None,
        progress_time=None,
        result=None,
        errors=(),
        complete_time=None,
        cancel_time=None,
        worker=None,
        lease_expire_time=None,
    )
