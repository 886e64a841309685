"""The statements of transitions, built from the transition table.

Each is defined once, over named inputs; `Prepared` runs it for many rows at a time.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.transitions import (
    ACTIVE,
    CLAIMABLE,
    DELETABLE,
    FALLBACK,
    PROGRESS_TOLERANCE,
    TABLE,
    TERMINAL,
    Transition,
    fallback_sources,
)
from milepost.storage.dialects import not_before
from milepost.storage.effects import EFFECTS, Inputs, failed_attempt, is_possible, progress, sets
from milepost.storage.event_writer import REQUEST_INPUTS, EventWriter
from milepost.storage.predicates import (
    ACCESS_FILTER,
    access_filter_values,
    has_status,
    is_accessible,
    unexpired,
)
from milepost.storage.prepared import Prepared
from milepost.storage.rows import COLUMNS, SUMMARY_COLUMNS
from milepost.storage.tables import events, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement

    from milepost.domain.operation import Status
    from milepost.domain.transitions import TransitionRequest
    from milepost.storage.database import Database, Runnable

    Build = Callable[[Mapping[str, ColumnElement[Any]]], Any]

CONDITIONS: Final[Inputs] = {
    "id": sa.Text(),
    **ACCESS_FILTER,
    **REQUEST_INPUTS,
    "expected_revision": sa.BigInteger(),
    "expected_attempt": sa.Integer(),
}
_o = operations.c


def condition_values(request: TransitionRequest) -> tuple[Any, ...]:
    """Return the values of the `CONDITIONS` inputs."""
    return (
        request.id,
        *access_filter_values(request.access_filter),
        request.actor,
        request.request_id,
        request.reason,
        request.expected_revision,
        request.attempt,
    )


def values(request: TransitionRequest) -> tuple[Any, ...]:
    """Return the values of all inputs of the requested transition."""
    return (*condition_values(request), *EFFECTS[request.transition].values(request))


def _may_transition(
    m: Mapping[str, ColumnElement[Any]], sources: frozenset[Status]
) -> tuple[ColumnElement[bool], ...]:
    return (
        _o.id == m["id"],
        has_status(operations, sources),
        is_accessible(m),
        unexpired(),
        sa.or_(m["expected_revision"].is_(None), m["expected_revision"] == _o.revision),
        sa.or_(
            m["expected_attempt"].is_(None),
            # A pending operation has no running attempt.
            sa.and_(
                m["expected_attempt"] == _o.attempt, has_status(operations, sources - CLAIMABLE)
            ),
        ),
    )


_RETURNING: Final = frozenset(
    transition for transition, rule in TABLE.items() if rule.target in ACTIVE
)
"""The transitions after which the operation may come back to one of their sources."""


def _is_new(
    m: Mapping[str, ColumnElement[Any]], transition: Transition
) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that this request has not made its transition before.

    Without it, a repeated request would make the transition again once the operation is back.
    """
    if transition not in _RETURNING:
        return ()
    e = events.c
    # A scalar subquery, looked up for each request: for EXISTS the planner might hash the table.
    made = (
        sa.select(e.revision)
        .where(
            e.operation_id == m["id"],
            not_before(e.time, _o.create_time),
            e.transition == sa.literal_column(f"'{transition}'"),
            e.actor == m["actor"],
            e.request_id == m["request_id"],
        )
        .limit(sa.literal_column("1"))
        .correlate_except(events)
        .scalar_subquery()
    )
    return (sa.or_(m["request_id"].is_(None), made.is_(None)),)


_ONE: Final = sa.literal_column("1", sa.Integer)


@functools.cache
def of_transition(
    database: Database, transition: Transition
) -> Sequence[tuple[Transition, Runnable]]:
    """Return the statements of a transition and of its fallback, in the order in which they run."""
    statements: list[tuple[Transition, Runnable]] = []
    if TABLE[transition].unrecorded:
        statements.append((transition, keeping_progress(database)))
    statements.append((transition, recorded(database, transition)))
    if transition in FALLBACK:
        statements.append((FALLBACK[transition], fallback(database, transition)))
    return statements


def recorded(database: Database, transition: Transition) -> EventWriter:
    """Return the statement of a transition that records an event; it returns the operation."""
    rule = TABLE[transition]

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        if rule.target is None:
            return sa.delete(operations).where(*_may_transition(m, DELETABLE)).returning(*COLUMNS)
        conditions = [
            *_may_transition(m, rule.recorded),
            *_is_new(m, transition),
            *is_possible(transition),
        ]
        if transition is Transition.ACKNOWLEDGE:
            conditions.append(_o.cancel_request_time.is_not(None))
        return _update(conditions, transition, m)

    return EventWriter(
        database, CONDITIONS | EFFECTS[transition].inputs, build, transition=transition
    )


def fallback(database: Database, transition: Transition) -> EventWriter:
    """Return the statement of the fallback of a transition, over the inputs of that transition."""
    instead = FALLBACK[transition]
    last = failed_attempt() if transition is Transition.RETRY else {}

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        conditions = [*_may_transition(m, fallback_sources(transition)), *_is_new(m, transition)]
        if possible := is_possible(transition):
            # The operation may have changed since the first statement: it must still be impossible.
            conditions.append(sa.not_(sa.and_(*possible)))
        if transition is Transition.RELEASE:
            m = {**m, "reason": sa.null()}  # that of the release is not that of the cancel
        return _update(conditions, instead, m, **last)

    return EventWriter(database, CONDITIONS | EFFECTS[transition].inputs, build, transition=instead)


def _update(
    conditions: Iterable[ColumnElement[bool]],
    transition: Transition,
    m: Mapping[str, ColumnElement[Any]],
    **more: Any,
) -> Any:
    return (
        sa.update(operations)
        .where(*conditions)
        .values(
            status=sa.literal_column(f"'{TABLE[transition].target}'"),
            revision=_o.revision + _ONE,
            **sets(transition, m),
            **more,
        )
        .returning(*COLUMNS)
    )


def keeping_progress(database: Database) -> Prepared:
    """Return the update of progress without a change of status, and so without an event."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        return (
            sa.update(operations)
            .where(
                *_may_transition(m, TABLE[Transition.PROGRESS].unrecorded),
                sa.or_(
                    m["progress"].is_(None),
                    _o.progress.is_(None),
                    m["progress"] >= _o.progress - sa.literal_column(str(PROGRESS_TOLERANCE)),
                ),
                # A retry changes nothing.
                sa.or_(
                    m["request_id"].is_(None),
                    _o.progress_request_id.is_(None),
                    m["request_id"] != _o.progress_request_id,
                ),
            )
            .values(revision=_o.revision + _ONE, **progress(m))
            .returning(*SUMMARY_COLUMNS)
        )

    return Prepared(database, CONDITIONS | EFFECTS[Transition.PROGRESS].inputs, build)


@functools.cache
def purge_expired_statement(database: Database) -> EventWriter:
    """Return the statement that removes expired operations by id."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        return (
            sa.delete(operations).where(_o.id == m["id"], sa.not_(unexpired())).returning(*COLUMNS)
        )

    return expiring(database, {"id": sa.Text(), **REQUEST_INPUTS}, build)


_NOT_ENDED: Final[Sequence[ColumnElement[str]]] = [
    sa.literal_column(f"'{status}'")
    for status in sorted(TABLE[Transition.PURGE].sources - TERMINAL)
]


def expiring(database: Database, inputs: Inputs, build: Build) -> EventWriter:
    """Return the removal of expired operations; only those that had not ended get a webhook."""
    return EventWriter(
        database,
        inputs,
        build,
        transition=Transition.PURGE,
        event=TABLE[Transition.EXPIRE].event,
        needs_webhook=lambda removed: removed["status"].in_(_NOT_ENDED),
    )
