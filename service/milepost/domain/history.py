"""The changes of status that an operation has been through, and how it stood after one of them."""

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
    """One change of status, as its event tells of it."""

    revision: int
    transition: Transition
    time: datetime
    attempt: int
    """The attempt that the operation was at after it."""


def has_ended(operation: Operation) -> bool:
    """Tell whether no transition but being forgotten is left to the operation."""
    return operation.status in TERMINAL


def has_passed_unseen(operation: Operation, *, revision: int, attempt: int | None) -> bool:
    """Tell whether statuses may lie between what was last seen and the operation as it stands.

    They do not between neighbouring revisions. Nor within one attempt: what leaves a status and
    comes back to an active one has been started once more.

    Args:
        operation: as it stands.
        revision: of what was last seen.
        attempt: of what was last seen; absent if that is not known.
    """
    return operation.revision > revision + 1 and operation.attempt != attempt


def as_it_stood(operation: Operation, passage: StatusChange) -> Operation:
    """Return the operation as it stood after an earlier change of status.

    What it was created with is as ever, and what the change itself decided is exact: status,
    revision, attempt and start. What only the operation of that moment knew is absent: progress,
    worker and lease.
    """
    status = TABLE[passage.transition].target or operation.status
    return replace(
        operation,
        status=status,
        revision=passage.revision,
        attempt=passage.attempt,
        start_time=passage.time if status is Status.PROCESSING else None,
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
