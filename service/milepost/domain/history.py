"""The history of an operation: its events, and the operation as it was after one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from milepost.domain.transitions import STARTING, TABLE, TERMINAL, Transition

if TYPE_CHECKING:
    from datetime import datetime

    from milepost.domain.operation import Operation, OperationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The record of one transition, for the owner of the operation."""

    revision: int
    type: str
    transition: str
    """Its name; a newer release may have recorded one that this release does not know."""
    time: datetime
    actor: str
    """The subject of the principal that made it."""
    attempt: int
    worker: str | None
    """The name of the worker of that attempt."""
    reason: str | None
    errors: tuple[OperationError, ...]
    """Of the attempt, if the transition ended it with errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSelection:
    """The list of the events of one operation."""

    collection: ClassVar = "events"
    """Names the list in page tokens: never changes."""

    operation_id: str


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
    """Return whether a reader may have missed recorded transitions.

    Consecutive revisions have none between them. Neither has one attempt, but in two cases: a
    cancel was requested, or the operation returned to PENDING and ended without another attempt.

    Args:
        operation: as it is now.
        revision: the last revision that the reader knows.
        attempt: the attempt at that revision; None if unknown.
    """
    return operation.revision > revision + 1 and (
        operation.attempt != attempt
        or operation.cancel_request_time is not None
        or (is_terminal(operation) and operation.start_time is None)
    )


def operation_after(operation: Operation, change: StatusChange) -> Operation:
    """Return the operation as it was after an earlier status change, as far as that is known.

    Status, revision, attempt and start_time are exact, and so is everything that never changes.
    Other values that changes write are absent, because events do not record them; only
    `failed_attempts` is that of now.
    """
    status = TABLE[change.transition].target or operation.status
    is_cancel_request = change.transition is Transition.REQUEST_CANCEL
    return replace(
        operation,
        status=status,
        revision=change.revision,
        attempt=change.attempt,
        start_time=change.time if change.transition in STARTING else None,
        progress=None,
        progress_message=None,
        progress_time=None,
        result=None,
        errors=(),
        complete_time=None,
        cancel_time=None,
        worker=None,
        lease_expire_time=None,
        next_attempt_time=None,
        checkpoint=None,
        cancel_request_time=change.time if is_cancel_request else None,
        cancel_delivered_time=None,
        cancel_expire_time=None,
        cancel_reason=None,
        queue_expire_time=None,
        run_expire_time=None,
    )
