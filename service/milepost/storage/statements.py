"""The statements of transitions, built from the transition table.

Each is defined once, over named inputs; `Prepared` runs it for many rows at a time.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.operation import OperationId, Status
from milepost.domain.transitions import (
    CLAIMABLE,
    DELETABLE,
    FALLBACK,
    PROGRESS_TOLERANCE,
    TABLE,
    TERMINAL,
    Transition,
    fallback_sources,
)
from milepost.storage.dialects import Instant, Span, clock, later, latest, scaled, shorter
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
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

    from milepost.domain.operation import NewOperation, Payload
    from milepost.domain.transitions import TransitionRequest
    from milepost.storage.database import Database, Runnable

    Build = Callable[[Mapping[str, ColumnElement[Any]]], Any]

Inputs = dict[str, "TypeEngine[Any]"]

JITTER: Final = 0.2
"""Largest share by which a pause between two attempts varies, in both directions."""

CONDITIONS: Final[Inputs] = {
    "id": sa.Text(),
    **ACCESS_FILTER,
    **REQUEST_INPUTS,
    "expected_revision": sa.BigInteger(),
    "expected_attempt": sa.Integer(),
}
EFFECTS: Final[Mapping[Transition, Inputs]] = {
    Transition.START: {"progress": sa.Double(), "worker": sa.Text()},
    Transition.PROGRESS: {
        "progress": sa.Double(),
        "message": sa.Text(),
        "worker": sa.Text(),
        "checkpoint_type": sa.Text(),
        "checkpoint_value": sa.LargeBinary(),
    },
    Transition.COMPLETE: {"result_type": sa.Text(), "result_value": sa.LargeBinary()},
    Transition.FAIL: {"errors": sa.Text()},
    Transition.RETRY: {"errors": sa.Text(), "delay": Span(), "jitter": sa.Double()},
    Transition.REQUEST_CANCEL: {"grace": Span()},
    Transition.ACKNOWLEDGE: {},
    Transition.CANCEL: {},
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
            return request.progress, request.message, request.worker, *_packed(request.checkpoint)
        case Transition.COMPLETE:
            return _packed(request.result)
        case Transition.FAIL:
            return (errors_to_json(request.errors),)
        case Transition.RETRY:
            return errors_to_json(request.errors), request.delay, jitter()
        case Transition.REQUEST_CANCEL:
            return (request.grace,)
        case _:
            return ()


def _packed(payload: Payload | None) -> tuple[str, bytes] | tuple[None, None]:
    return (None, None) if payload is None else (payload.type_url, payload.value)


def jitter() -> float:
    """Return a random factor of a pause, so that operations that fail together spread out."""
    return random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - a pause


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
    "run_expire_time",
)
"""The columns that the end of an attempt clears, if the operation goes on."""
_END_COLUMNS: Final = (
    "lease",
    "lease_expire_time",
    "next_attempt_time",
    "queue_expire_time",
    "run_expire_time",
    "cancel_expire_time",
    "checkpoint_type",
    "checkpoint_value",
)
"""The columns that the end of an operation clears."""


def is_possible(transition: Transition) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions, beside the status, without which the fallback happens instead."""
    if transition not in {Transition.RETRY, Transition.RELEASE}:
        return ()
    not_cancelled = _o.cancel_request_time.is_(None)
    if transition is Transition.RELEASE:
        return (not_cancelled,)
    return (not_cancelled, has_attempts_left(), _o.expire_time >= clock())


def has_attempts_left() -> ColumnElement[bool]:
    """Return the condition that another attempt may follow if this one fails."""
    return _o.failed_attempts + _ONE < _o.max_attempts


def sets(transition: Transition, m: Mapping[str, ColumnElement[Any]]) -> dict[str, Any]:
    """Return the columns that `transition` writes, beside the status and the revision."""
    end = latest(_o.start_time, clock())
    ended = {
        "expire_time": latest(_o.expire_time, later(end, _o.ttl)),
        **dict.fromkeys(_END_COLUMNS, sa.null()),
    }
    match transition:
        case Transition.START:
            return {
                **started(m),
                "progress": m["progress"],
                "progress_time": sa.case((m["progress"].is_not(None), clock())),
            }
        case Transition.PROGRESS:
            return {**started(m), **_progress(m)}
        case Transition.COMPLETE:
            return {
                **ended,
                "complete_time": end,
                "progress": sa.literal_column("1.0"),
                "result_type": m["result_type"],
                "result_value": m["result_value"],
            }
        case Transition.FAIL | Transition.TIME_OUT | Transition.EXPIRE:
            return {**ended, "complete_time": end, "errors": m["errors"]}
        case Transition.ABANDON:
            return {**ended, "complete_time": end, "errors": m["errors"], **_failed_attempt()}
        case Transition.RELEASE:
            return {**dict.fromkeys(_ATTEMPT_COLUMNS, sa.null()), **_waiting(m["delay"])}
        case Transition.RETRY:
            pause = sa.func.coalesce(m["delay"], scaled(_o.backoff, m["jitter"]))
            longer = scaled(_o.backoff, _o.backoff_multiplier)
            return {
                **dict.fromkeys(_ATTEMPT_COLUMNS, sa.null()),
                **_failed_attempt(),
                **_waiting(pause),
                "backoff": shorter(longer, _o.max_backoff),
            }
        case Transition.REQUEST_CANCEL:
            return {
                "cancel_request_time": sa.func.coalesce(_o.cancel_request_time, clock()),
                "cancel_expire_time": later(clock(), m["grace"]),
                "cancel_reason": sa.func.coalesce(m["reason"], _o.cancel_reason),
            }
        case Transition.ACKNOWLEDGE:
            return {**ended, "cancel_time": end}
        case Transition.CANCEL:
            reason = sa.func.coalesce(_o.cancel_reason, m["reason"])
            return {**ended, "cancel_time": end, "cancel_reason": reason}
        case _:
            raise ValueError(transition)


def started(m: Mapping[str, ColumnElement[Any]]) -> dict[str, Any]:
    """Return the columns that the start of an attempt writes."""
    return {
        "start_time": clock(),
        "attempt": _o.attempt + _ONE,
        "worker": m["worker"],
        "next_attempt_time": sa.null(),
        "queue_expire_time": sa.null(),
        "run_expire_time": later(clock(), _o.run_timeout),
    }


def _failed_attempt() -> dict[str, Any]:
    return {"failed_attempts": _o.failed_attempts + _ONE}


def _waiting(pause: ColumnElement[Any]) -> dict[str, Any]:
    """Return the columns of an operation that is not claimable before a pause; NULL for none."""
    due = sa.func.coalesce(later(clock(), pause), clock())
    return {
        "next_attempt_time": later(clock(), pause),
        "queue_expire_time": later(sa.type_coerce(due, Instant()), _o.queue_timeout),
    }


def _progress(m: Mapping[str, ColumnElement[Any]]) -> dict[str, Any]:
    requested, current = m["progress"], _o.progress
    has_checkpoint = m["checkpoint_type"].is_not(None)
    return {
        **{
            name: sa.case((has_checkpoint, m[name]), else_=_o[name])
            for name in ("checkpoint_type", "checkpoint_value")
        },
        # The answer to this write tells the worker that a cancel is requested.
        "cancel_delivered_time": sa.case(
            (_o.cancel_request_time.is_(None), sa.null()),
            else_=sa.func.coalesce(_o.cancel_delivered_time, clock()),
        ),
        "progress": sa.case(
            (sa.or_(requested.is_(None), requested < current), current), else_=requested
        ),
        "progress_message": sa.func.coalesce(m["message"], _o.progress_message),
        "progress_time": clock(),
        "progress_request_id": m["request_id"],
        "lease_expire_time": later(clock(), _o.lease),
    }


_ONE: Final = sa.literal_column("1", sa.Integer)


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
        conditions = [*_may_transition(m, rule.recorded), *is_possible(transition)]
        if transition is Transition.ACKNOWLEDGE:
            conditions.append(_o.cancel_request_time.is_not(None))
        return _update(conditions, transition, m)

    return EventWriter(database, CONDITIONS | EFFECTS[transition], build, transition=transition)


def fallback(database: Database, transition: Transition) -> EventWriter:
    """Return the statement of the fallback of a transition, over the inputs of that transition."""
    instead = FALLBACK[transition]
    last = _failed_attempt() if transition is Transition.RETRY else {}

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        conditions = _may_transition(m, fallback_sources(transition))
        return _update(conditions, instead, m, **last)

    return EventWriter(database, CONDITIONS | EFFECTS[transition], build, transition=instead)


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
    "priority": sa.Integer(),
    "schedule_time": Instant(),
    "unique_key": sa.Text(),
    "initial_backoff": Span(),
    "backoff_multiplier": sa.Double(),
    "max_backoff": Span(),
    "queue_timeout": Span(),
    "run_timeout": Span(),
    "quota": sa.Integer(),
}


def insert(database: Database) -> Runnable:
    """Return the insert of new operations; it skips conflicts, and owners without free quota."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        if database.writes_in_ctes:
            m, granted = reserve(database, m)
        else:
            granted = has_quota(m)
        begin = latest(m["schedule_time"], clock())
        values: dict[str, Any] = {
            **{name: value for name, value in m.items() if name in _o},
            "status": sa.literal_column(f"'{TABLE[Transition.CREATE].target}'"),
            "revision": _ONE,
            "attempt": sa.literal_column("0"),
            "create_time": clock(),
            "expire_time": later(begin, m["ttl"]),
            "next_attempt_time": sa.case((m["schedule_time"] > clock(), m["schedule_time"])),
            "queue_expire_time": later(begin, m["queue_timeout"]),
            "backoff": shorter(m["initial_backoff"], m["max_backoff"]),
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
        new_operation.priority,
        new_operation.schedule_time,
        new_operation.unique_key,
        new_operation.retry_policy.initial_backoff,
        new_operation.retry_policy.backoff_multiplier,
        new_operation.retry_policy.max_backoff,
        new_operation.queue_timeout,
        new_operation.run_timeout,
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
