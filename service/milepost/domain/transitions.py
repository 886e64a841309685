"""The one transition table, and what it means for a transition that did not happen.

Everything that knows which status may follow which derives from `TABLE` or is tested against
it: the WHERE clauses of the store, the error texts, the diagram in ``docs/architecture.md``,
the comments of the proto files and the test matrix of every status and every transition.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

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

PROGRESS_TOLERANCE: Final = 0.001
"""How far progress may dip before it is refused; the larger value is kept."""


class Transition(StrEnum):
    """A named change of an operation."""

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
    """Who may do a transition."""

    CALLER = "caller"
    OWNER = "owner"
    WORKER = "worker"
    ADMIN = "admin"
    SWEEPER = "sweeper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table: from where, to where, by whom, and the event it records."""

    sources: frozenset[Status]
    """The statuses the transition may start from; empty for the transition that creates."""
    target: Status | None
    """The status it leads to; nothing for the transition that removes."""
    by: frozenset[Actor]
    event: str
    """The type of the event that is recorded when the status changes."""

    @property
    def changing(self) -> frozenset[Status]:
        """The statuses from which this transition changes the status, and so records an event."""
        return self.sources - {self.target}

    @property
    def keeping(self) -> frozenset[Status]:
        """The statuses that this transition leaves as they are."""
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
    Transition.RELEASE: _rule("PROCESSING", Status.PENDING, "sweeper", "released"),
    Transition.ABANDON: _rule("PROCESSING", Status.FAILED, "sweeper", "failed"),
    Transition.EXPIRE: _rule("PROCESSING", Status.FAILED, "sweeper", "expired"),
    Transition.PURGE: _rule(
        "PENDING COMPLETED FAILED CANCELLED", None, "sweeper owner admin", "deleted"
    ),
}

TERMINAL: Final = frozenset(
    status
    for status in Status
    if not any(status in rule.sources for rule in TABLE.values() if rule.target is not None)
)
"""The statuses that no transition leaves, except to be forgotten."""
ACTIVE: Final = frozenset(Status) - TERMINAL
DELETABLE: Final = TABLE[Transition.PURGE].sources & TERMINAL
"""The statuses that an owner may delete before expiry: an active operation is cancelled first."""
CLAIMABLE: Final = TABLE[Transition.CLAIM].sources
"""The statuses in which no attempt is running."""
STARTING: Final = frozenset(
    transition for transition, rule in TABLE.items() if rule.event == TABLE[Transition.START].event
)
"""The transitions whose event is the beginning of an attempt."""


class Preconditions(NamedTuple):
    """What a change depends on beside the transition table. Absent means: no condition."""

    request_id: str | None = None
    """Names the call, so that its repetition is answered instead of done again."""
    expected_revision: int | None = None
    attempt: int | None = None


class TransitionRequest(NamedTuple):
    """One transition that somebody asks for, with every condition it depends on.

    A tuple like the operation, and for the same reason.
    """

    transition: Transition
    id: OperationId
    access_filter: AccessFilter
    actor: str
    """The subject that asks."""
    request_id: str | None = None
    expected_revision: int | None = None
    attempt: int | None = None
    progress: float | None = None
    message: str | None = None
    worker: str | None = None
    result: Payload | None = None
    errors: tuple[OperationError, ...] = ()
    reason: str | None = None

    @property
    def sources(self) -> frozenset[Status]:
        """The statuses from which this change may happen."""
        return DELETABLE if self.transition is Transition.PURGE else TABLE[self.transition].sources


class TransitionResult(NamedTuple):
    """An operation as a transition left it, or as an earlier call with this request_id left it."""

    operation: Operation
    replayed: bool = False


def refusal(change: TransitionRequest, found: Operation) -> MilepostError | None:
    """Say why `change` did not happen to the operation `found`, or nothing if it now could.

    A stale token is named before the status: whoever acts on an old copy is told to read
    again, whatever the operation has become since.
    """
    if change.expected_revision not in (None, found.revision):
        return RevisionMismatch(expected=change.expected_revision, actual=found.revision)
    if change.attempt is not None and is_over(change.attempt, found):
        return StaleAttempt(expected=change.attempt, actual=found.attempt)
    if found.status not in change.sources:
        return IllegalTransition(
            transition=change.transition, status=found.status, allowed=tuple(sorted(change.sources))
        )
    if is_decrease(change.progress, found.progress):
        return ProgressDecrease(current=found.progress, requested=change.progress)
    return None


LEASE_LOST: Final = "LEASE_LOST"
"""The error code of what was abandoned."""
EXPIRED: Final = "EXPIRED"
"""The error code of what ran past its `expire_time`."""


def is_over(attempt: int, found: Operation) -> bool:
    """Tell whether this attempt at the operation `found` has ended by its lease, or by another.

    A pending operation has no running attempt: the last one was released.
    """
    lost = found.status is Status.FAILED and any(e.code == LEASE_LOST for e in found.errors)
    return attempt != found.attempt or found.status in CLAIMABLE or lost


def is_decrease(requested: float | None, current: float | None) -> bool:
    """Tell whether progress would go back by more than the tolerance."""
    return (
        requested is not None and current is not None and requested < current - PROGRESS_TOLERANCE
    )
