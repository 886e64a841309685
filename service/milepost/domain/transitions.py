"""The transition table, and the error of a transition that did not happen.

Every rule about the order of statuses derives from `TABLE` or is tested against it: the WHERE
clauses of the store, the error texts, the diagram in ``docs/architecture.md``, the comments of the
proto files and the test matrix of every status and every transition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from milepost.domain.errors import (
    IllegalTransition,
    MilepostError,
    ProgressDecrease,
    RevisionMismatch,
    StaleAttempt,
)
from milepost.domain.operation import (
    AccessFilter,
    Operation,
    OperationError,
    OperationId,
    Payload,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

PROGRESS_TOLERANCE: Final = 0.001
"""Largest decrease of progress that is accepted; the larger value is kept."""


class Transition(StrEnum):
    """Name of a change of an operation."""

    CREATE = "create"
    START = "start"
    CLAIM = "claim"
    PROGRESS = "progress"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    RELEASE = "release"
    ABANDON = "abandon"
    EXPIRE = "expire"
    PURGE = "purge"


class Actor(StrEnum):
    """Relation to an operation that allows a transition."""

    CALLER = "caller"
    OWNER = "owner"
    WORKER = "worker"
    ADMIN = "admin"
    SWEEPER = "sweeper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table: sources, target, actors and event of a transition."""

    sources: frozenset[Status]
    """Statuses that the transition may start from; empty for the create."""
    target: Status | None
    """Status that it leads to; None for the purge."""
    by: frozenset[Actor]
    event: str
    """Type of the event that is recorded when the status changes."""

    @property
    def changing(self) -> frozenset[Status]:
        """Sources from which the status changes, and an event is recorded."""
        return self.sources - {self.target}

    @property
    def keeping(self) -> frozenset[Status]:
        """Sources from which the status stays as it is."""
        return self.sources & {self.target}


def _rule(sources: str, target: Status | None, by: str, event: str) -> Rule:
    return Rule(
        sources=frozenset(Status(name) for name in sources.split()),
        target=target,
        by=frozenset(Actor(name) for name in by.split()),
        event=f"operation.{event}",
    )


TABLE: Final[Mapping[Transition, Rule]] = {
    Transition.CREATE: _rule("", Status.PENDING, "caller", "created"),
    Transition.START: _rule("PENDING", Status.PROCESSING, "owner worker", "started"),
    Transition.CLAIM: _rule("PENDING", Status.PROCESSING, "worker", "started"),
    Transition.PROGRESS: _rule("PENDING PROCESSING", Status.PROCESSING, "owner worker", "started"),
    Transition.COMPLETE: _rule("PROCESSING", Status.COMPLETED, "owner worker", "completed"),
    Transition.FAIL: _rule("PENDING PROCESSING", Status.FAILED, "owner worker", "failed"),
    Transition.CANCEL: _rule("PENDING PROCESSING", Status.CANCELLED, "owner admin", "cancelled"),
    Transition.RELEASE: _rule("PROCESSING", Status.PENDING, "owner worker sweeper", "released"),
    Transition.ABANDON: _rule("PROCESSING", Status.FAILED, "sweeper", "failed"),
    Transition.EXPIRE: _rule("PROCESSING", Status.FAILED, "sweeper", "expired"),
    Transition.PURGE: _rule(
        "PENDING COMPLETED FAILED CANCELLED", None, "sweeper owner admin", "deleted"
    ),
}

CALLBACK_EVENTS: Final = tuple(
    dict.fromkeys(
        rule.event for rule in TABLE.values() if rule.target not in (None, Status.PENDING)
    )
)
"""The event types that a webhook can be sent for: an operation has left PENDING or has ended."""

TERMINAL: Final = frozenset(
    status
    for status in Status
    if not any(status in rule.sources for rule in TABLE.values() if rule.target is not None)
)
"""Statuses that no transition leaves, except the purge."""
ACTIVE: Final = frozenset(Status) - TERMINAL
DELETABLE: Final = TABLE[Transition.PURGE].sources & TERMINAL
"""The statuses that an owner may delete before expiry: an active operation is cancelled first."""
CLAIMABLE: Final = TABLE[Transition.CLAIM].sources
"""The statuses in which no attempt is running."""
STARTING: Final = frozenset(
    transition for transition, rule in TABLE.items() if rule.event == TABLE[Transition.START].event
)
"""The transitions whose event is the beginning of an attempt."""
ENDING: Final = frozenset(
    transition
    for transition, rule in TABLE.items()
    if Status.PROCESSING in rule.changing and rule.target is not None
)
"""The transitions that end an attempt."""


@dataclass(slots=True, kw_only=True)
class Preconditions:
    """Conditions of a transition beside the transition table. An absent one is no condition."""

    request_id: str | None = None
    """Names the call, so that a retry returns the result of the first try."""
    expected_revision: int | None = None
    attempt: int | None = None


@dataclass(slots=True, kw_only=True)
class TransitionRequest:
    """One requested transition, with every condition that it depends on."""

    transition: Transition
    id: OperationId
    access_filter: AccessFilter
    actor: str
    """The subject of the caller."""
    request_id: str | None = None
    expected_revision: int | None = None
    attempt: int | None = None
    progress: float | None = None
    message: str | None = None
    worker: str | None = None
    result: Payload | None = None
    errors: tuple[OperationError, ...] = ()
    reason: str | None = None
    delay: timedelta | None = None
    """The time until the next attempt may start, of a release; None keeps `next_attempt_time`."""

    @property
    def sources(self) -> frozenset[Status]:
        """Statuses from which this transition may happen."""
        return DELETABLE if self.transition is Transition.PURGE else TABLE[self.transition].sources


@dataclass(slots=True)
class TransitionResult:
    """An operation as a transition left it, or as an earlier call with this request_id left it."""

    operation: Operation
    replayed: bool = field(default=False, kw_only=True)


def refusal(request: TransitionRequest, found: Operation) -> MilepostError | None:
    """Return the reason why `request` did not happen to `found`, or None if it now could.

    A stale revision or attempt is reported before the status: a caller that acts on an old copy
    must read the operation again, whatever its status is.
    """
    if request.expected_revision not in (None, found.revision):
        return RevisionMismatch(expected=request.expected_revision, actual=found.revision)
    if request.attempt is not None and is_over(request.attempt, found):
        return StaleAttempt(expected=request.attempt, actual=found.attempt)
    if found.status not in request.sources:
        return IllegalTransition(
            transition=request.transition,
            status=found.status,
            allowed=tuple(sorted(request.sources)),
        )
    if is_decrease(request.progress, found.progress):
        return ProgressDecrease(current=found.progress, requested=request.progress)
    return None


LEASE_LOST: Final = "LEASE_LOST"
"""Error code of an abandoned operation."""
EXPIRED: Final = "EXPIRED"
"""Error code of an operation that was processing past its `expire_time`."""


def is_over(attempt: int, found: Operation) -> bool:
    """Return whether `attempt` has ended, by a lost lease or by a later attempt.

    A pending operation has no running attempt: the last one was released.
    """
    lost = found.status is Status.FAILED and any(e.code == LEASE_LOST for e in found.errors)
    return attempt != found.attempt or found.status in CLAIMABLE or lost


def is_decrease(requested: float | None, current: float | None) -> bool:
    """Return whether progress would decrease by more than the tolerance."""
    return (
        requested is not None and current is not None and requested < current - PROGRESS_TOLERANCE
    )
