"""The statements of transitions, built from the transition table.

Each is defined once, over named inputs; `Prepared` runs it for many rows at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.operation import OperationId, Status
from milepost.domain.transitions import (
    CLAIMABLE,
    DELETABLE,
    PROGRESS_TOLERANCE,
    TABLE,
    TERMINAL,
    Transition,
)
from milepost.storage.dialects import Span, clock, later, latest
from milepost.storage.event_writer import REQUEST_INPUTS, EventWriter
from milepost.storage.predicates import (
    ACCESS_FILTER,
    access_filter_values,
    has_status,
    is_accessible,
    unexpired,
)
from milepost.storage.prepared import Prepared
from milepost.storage.quotas import QuotaReservation, has_quota, reserve
from milepost.storage.rows import COLUMNS, SUMMARY_COLUMNS, errors_to_json
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

    from milepost.domain.operation import NewOperation
    from milepost.domain.transitions import TransitionRequest
    from milepost.storage.database import Database, Runnable

    Build = Callable[[Mapping[str, ColumnElement[Any]]], Any]

Inputs = dict[str, "TypeEngine[Any]"]

CONDITIONS: Final[Inputs] = {
    "id": sa.Text(),
    **ACCESS_FILTER,
    **REQUEST_INPUTS,
    "expected_revision": sa.BigInteger(),
    "expected_attempt": sa.Integer(),
}
EFFECTS: Final[Mapping[Transition, Inputs]] = {
    Transition.START: {"progress": sa.Double(), "worker": sa.Text()},
    Transition.PROGRESS: {"progress": sa.Double(), "message": sa.Text(), "worker": sa.Text()},
    Transition.COMPLETE: {"result_type": sa.Text(), "result_value": sa.LargeBinary()},
    Transition.FAIL: {"errors": sa.Text()},
    Transition.CANCEL: {},
    Transition.RELEASE: {"delay": Span()},
    Transition.PURGE: {},
}
"""The inputs of each transition beside its conditions."""

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


def effect_values(request: TransitionRequest) -> tuple[Any, ...]:
    """Return the values of the `EFFECTS` inputs of the requested transition."""
    match request.transition:
        case Transition.START:
            return request.progress, request.worker
        case Transition.PROGRESS:
            return request.progress, request.message, request.worker
        case Transition.COMPLETE:
            result = request.result
            return (result.type_url, result.value) if result else (None, None)
        case Transition.FAIL:
            return (errors_to_json(request.errors),)
        case Transition.RELEASE:
            return (request.delay,)
        case _:
            return ()


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


_ATTEMPT_COLUMNS: Final = (
    "progress",
    "progress_time",
    "progress_request_id",
    "start_time",
    "worker",
    "lease",
    "lease_expire_time",
)
"""The columns that a release clears."""


def sets(transition: Transition, m: Mapping[str, ColumnElement[Any]]) -> dict[str, Any]:
    """Return the columns that `transition` writes, beside the status and the revision."""
    started = {"start_time": clock(), "attempt": _o.attempt + _ONE, "worker": m.get("worker")}
    end = latest(_o.start_time, clock())
    ended = {
        "expire_time": latest(_o.expire_time, later(end, _o.ttl)),
        "lease": sa.null(),
        "lease_expire_time": sa.null(),
    }
    match transition:
        case Transition.START:
            return {
                **started,
                "progress": m["progress"],
                "progress_time": sa.case((m["progress"].is_not(None), clock())),
            }
        case Transition.PROGRESS:
            return {**started, **_progress(m)}
        case Transition.COMPLETE:
            return {
                **ended,
                "complete_time": end,
                "progress": sa.literal_column("1.0"),
                "result_type": m["result_type"],
                "result_value": m["result_value"],
            }
        case Transition.FAIL | Transition.ABANDON | Transition.EXPIRE:
            return {**ended, "complete_time": end, "errors": m["errors"]}
        case Transition.RELEASE:
            return dict.fromkeys(_ATTEMPT_COLUMNS, sa.null()) | _next_attempt(m.get("delay"))
        case Transition.CANCEL:
            return {**ended, "cancel_time": end}
        case _:
            raise ValueError(transition)


def _next_attempt(delay: ColumnElement[timedelta] | None) -> dict[str, Any]:
    """Return the time of the next attempt: without a delay it stays, and so does the place."""
    if delay is None:
        return {}
    due = later(clock(), delay)
    return {"next_attempt_time": sa.case((delay.is_(None), _o.next_attempt_time), else_=due)}


def _progress(m: Mapping[str, ColumnElement[Any]]) -> dict[str, Any]:
    requested, current = m["progress"], _o.progress
    return {
        "progress": sa.case(
            (sa.or_(requested.is_(None), requested < current), current), else_=requested
        ),
        "progress_message": sa.func.coalesce(m["message"], _o.progress_message),
        "progress_time": clock(),
        "progress_request_id": m["request_id"],
        "lease_expire_time": later(clock(), _o.lease),
    }


_ONE: Final = sa.literal_column("1", sa.Integer)


def of_transition(database: Database, transition: Transition) -> Sequence[Runnable]:
    """Return the statements of a transition, in the order in which they run."""
    keeping = (keeping_progress(database),) if TABLE[transition].keeping else ()
    return (*keeping, changing(database, transition))


def changing(database: Database, transition: Transition) -> EventWriter:
    """Return the statement of a transition that changes the status; it returns the operation."""
    rule = TABLE[transition]

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        if rule.target is None:
            return sa.delete(operations).where(*_may_transition(m, DELETABLE)).returning(*COLUMNS)
        return (
            sa.update(operations)
            .where(*_may_transition(m, rule.changing))
            .values(
                status=sa.literal_column(f"'{rule.target}'"),
                revision=_o.revision + _ONE,
                **sets(transition, m),
            )
            .returning(*COLUMNS)
        )

    return EventWriter(database, CONDITIONS | EFFECTS[transition], build, transition=transition)


def keeping_progress(database: Database) -> Prepared:
    """Return the update of progress without a change of status, and so without an event."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        return (
            sa.update(operations)
            .where(
                *_may_transition(m, TABLE[Transition.PROGRESS].keeping),
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
            .values(revision=_o.revision + _ONE, **_progress(m))
            .returning(*SUMMARY_COLUMNS)
        )

    return Prepared(database, CONDITIONS | EFFECTS[Transition.PROGRESS], build)


INSERT: Final[Inputs] = {
    "id": sa.Text(),
    **REQUEST_INPUTS,
    "owner": sa.Text(),
    "function": sa.Text(),
    "version": sa.Text(),
    "metadata": sa.Text(),
    "original_request_id": sa.Text(),
    "callback_url": sa.Text(),
    "callback_events": sa.Text(),
    "ttl": _o.ttl.type,
    "retry_after": _o.retry_after.type,
    "max_attempts": sa.Integer(),
    "fingerprint": sa.Text(),
    "trace_context": sa.Text(),
    "quota": sa.Integer(),
}


def insert(database: Database) -> Runnable:
    """Return the insert of new operations; it skips conflicts, and owners without free quota."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        if database.writes_in_ctes:
            m, granted = reserve(database, m)
        else:
            granted = has_quota(m)
        values: dict[str, Any] = {
            **{name: value for name, value in m.items() if name in _o},
            "status": sa.literal_column(f"'{TABLE[Transition.CREATE].target}'"),
            "revision": _ONE,
            "attempt": sa.literal_column("0"),
            "create_time": clock(),
            "next_attempt_time": clock(),
            "expire_time": later(clock(), m["ttl"]),
        }
        return (
            database.insert(operations)
            .from_select(list(values), sa.select(*values.values()).where(granted))
            .on_conflict_do_nothing()
            .returning(*COLUMNS)
        )

    event_writer = EventWriter(database, INSERT, build, transition=Transition.CREATE)
    if database.writes_in_ctes:
        return event_writer
    return QuotaReservation(database, event_writer, owner=list(INSERT).index("owner"))


def new_operation_values(operation_id: OperationId, new_operation: NewOperation) -> tuple[Any, ...]:
    """Return the values of the `INSERT` inputs."""
    return (
        operation_id,
        new_operation.owner,
        new_operation.request_id,
        None,
        new_operation.owner,
        new_operation.function,
        new_operation.version,
        new_operation.metadata,
        new_operation.original_request_id,
        new_operation.callback_url,
        " ".join(new_operation.callback_events) or None,
        new_operation.ttl,
        new_operation.retry_after,
        new_operation.max_attempts,
        new_operation.fingerprint,
        new_operation.trace_context,
        new_operation.quota,
    )


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
