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
    CancellationNotRequested,
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
    RETRY = "retry"
    REQUEST_CANCEL = "request_cancel"
    ACKNOWLEDGE = "acknowledge"
    CANCEL = "cancel"
    RELEASE = "release"
    ABANDON = "abandon"
    TIME_OUT = "time_out"
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
    """Type of the event that is recorded."""
    is_frequent: bool = False
    """True if no event is recorded while the status stays as it is: there would be too many."""

    @property
    def recorded(self) -> frozenset[Status]:
        """Sources from which an event is recorded."""
        return self.sources - self.unrecorded

    @property
    def unrecorded(self) -> frozenset[Status]:
        """Sources from which no event is recorded."""
        return self.sources & {self.target} if self.is_frequent else frozenset()


def _rule(
    sources: str, target: Status | None, by: str, event: str, *, is_frequent: bool = False
) -> Rule:
    return Rule(
        sources=frozenset(Status(name) for name in sources.split()),
        target=target,
        by=frozenset(Actor(name) for name in by.split()),
        event=f"operation.{event}",
        is_frequent=is_frequent,
    )


TABLE: Final[Mapping[Transition, Rule]] = {
    Transition.CREATE: _rule("", Status.PENDING, "caller", "created"),
    Transition.START: _rule("PENDING", Status.PROCESSING, "owner worker", "started"),
    Transition.CLAIM: _rule("PENDING", Status.PROCESSING, "worker", "started"),
    Transition.PROGRESS: _rule(
        "PENDING PROCESSING", Status.PROCESSING, "owner worker", "started", is_frequent=True
    ),
    Transition.COMPLETE: _rule("PROCESSING", Status.COMPLETED, "owner worker", "completed"),
    Transition.FAIL: _rule("PENDING PROCESSING", Status.FAILED, "owner worker", "failed"),
    Transition.RETRY: _rule("PROCESSING", Status.PENDING, "owner worker sweeper", "retrying"),
    Transition.REQUEST_CANCEL: _rule(
        "PROCESSING", Status.PROCESSING, "owner admin", "cancel_requested"
    ),
    Transition.ACKNOWLEDGE: _rule("PROCESSING", Status.CANCELLED, "owner worker", "cancelled"),
    Transition.CANCEL: _rule(
        "PENDING PROCESSING", Status.CANCELLED, "owner admin sweeper", "cancelled"
    ),
    Transition.RELEASE: _rule("PROCESSING", Status.PENDING, "owner worker sweeper", "released"),
    Transition.ABANDON: _rule("PROCESSING", Status.FAILED, "sweeper", "failed"),
    Transition.TIME_OUT: _rule("PENDING", Status.FAILED, "sweeper", "failed"),
    Transition.EXPIRE: _rule("PROCESSING", Status.FAILED, "sweeper", "expired"),
    Transition.PURGE: _rule(
        "PENDING COMPLETED FAILED CANCELLED", None, "sweeper owner admin", "deleted"
    ),
}

FALLBACK: Final[Mapping[Transition, Transition]] = {
    Transition.RETRY: Transition.FAIL,
    Transition.RELEASE: Transition.CANCEL,
    Transition.REQUEST_CANCEL: Transition.CANCEL,
}
"""The transition that happens instead, in the same transaction, where the first one cannot.

A retry without an attempt left fails the operation. An operation whose cancel was requested does
not return to PENDING: a retry fails it, and a release cancels it. The requested cancel of an
operation that no worker holds is a cancel.
"""

CALLBACK_EVENTS: Final = tuple(
    dict.fromkeys(rule.event for rule in TABLE.values() if rule.sources and rule.target is not None)
)
"""The event types that a webhook can be sent for: all but those of the create and the purge."""

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
    if Status.PROCESSING in rule.sources and rule.target not in (None, Status.PROCESSING)
)
"""The transitions that end an attempt: pending progress is committed before them."""


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
    checkpoint: Payload | None = None
    worker: str | None = None
    result: Payload | None = None
    errors: tuple[OperationError, ...] = ()
    reason: str | None = None
    delay: timedelta | None = None
    """Time until the operation can be claimed again; None for the pause of its retry policy."""
    grace: timedelta | None = None
    """Time that the worker has to end the operation after a requested cancel."""

    @property
    def sources(self) -> frozenset[Status]:
        """Statuses from which this transition, or its fallback, may happen."""
        if self.transition is Transition.PURGE:
            return DELETABLE
        return TABLE[self.transition].sources | fallback_sources(self.transition)


def fallback_sources(transition: Transition) -> frozenset[Status]:
    """Return the statuses from which the fallback of a transition happens; none without one."""
    match transition:
        case Transition.RETRY | Transition.RELEASE:
            return TABLE[transition].sources
        case Transition.REQUEST_CANCEL:
            return TABLE[FALLBACK[transition]].sources - TABLE[transition].sources
        case _:
            return frozenset()


@dataclass(slots=True)
class TransitionResult:
    """An operation as a transition left it, or as an earlier call with this request_id left it."""

    operation: Operation
    replayed: bool = field(default=False, kw_only=True)
    joined: bool = field(default=False, kw_only=True)
    """True if a create was answered with the active operation of its unique key."""
    transition: Transition | None = field(default=None, kw_only=True)
    """The transition that happened: the requested one or its fallback; None for a create."""


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
    if request.transition is Transition.ACKNOWLEDGE and found.cancel_request_time is None:
        return CancellationNotRequested(found.id)
    if is_decrease(request.progress, found.progress):
        return ProgressDecrease(current=found.progress, requested=request.progress)
    return None


LEASE_LOST: Final = "LEASE_LOST"
"""Error code of an operation whose last attempt lost its lease."""
RUN_TIMEOUT: Final = "RUN_TIMEOUT"
"""Error code of an attempt that took longer than the `run_timeout` of its operation."""
QUEUE_TIMEOUT: Final = "QUEUE_TIMEOUT"
"""Error code of an operation that was pending for longer than its `queue_timeout`."""
EXPIRED: Final = "EXPIRED"
"""Error code of an operation that was processing past its `expire_time`."""
ENDS_OF_ATTEMPTS: Final = frozenset({LEASE_LOST, RUN_TIMEOUT, QUEUE_TIMEOUT})
"""Error codes of operations that failed when no attempt was running any more."""


def is_over(attempt: int, found: Operation) -> bool:
    """Return whether `attempt` has ended: its lease is lost, its time is over, or a later one runs.

    A pending operation has no running attempt: the last one was released.
    """
    lost = found.status is Status.FAILED and any(
        error.code in ENDS_OF_ATTEMPTS for error in found.errors
    )
    return attempt != found.attempt or found.status in CLAIMABLE or lost


def is_decrease(requested: float | None, current: float | None) -> bool:
    """Return whether progress would decrease by more than the tolerance."""
    return (
        requested is not None and current is not None and requested < current - PROGRESS_TOLERANCE
    )
