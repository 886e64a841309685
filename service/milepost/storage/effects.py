"""The effects of each transition: its inputs, and the columns that it writes.

Status and revision are not among them. The statements around them are in `statements.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from milepost.domain.transitions import Transition, TransitionRequest
from milepost.storage.dialects import Instant, Span, clock, later, latest, scaled, shorter
from milepost.storage.rows import errors_to_json
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from sqlalchemy.types import TypeEngine

    from milepost.domain.operation import Payload

Inputs = dict[str, "TypeEngine[Any]"]
Columns = Mapping[str, ColumnElement[Any]]
Sets = dict[str, Any]

JITTER: Final = 0.2
"""Largest share by which a pause between two attempts varies, in both directions."""

_o = operations.c
_ONE: Final = sa.literal_column("1", sa.Integer)


@dataclass(frozen=True, slots=True)
class Effect:
    """The inputs of one transition beside its conditions, and their values in a request."""

    inputs: Inputs
    values: Callable[[TransitionRequest], tuple[Any, ...]]


def _packed(payload: Payload | None) -> tuple[str, bytes] | tuple[None, None]:
    return (None, None) if payload is None else (payload.type_url, payload.value)


def jitter() -> float:
    """Return a random factor of a pause, so that operations that fail together spread out."""
    return random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - a pause


_NOTHING: Final = Effect({}, lambda _: ())
EFFECTS: Final[Mapping[Transition, Effect]] = {
    Transition.START: Effect(
        {"progress": sa.Double(), "worker": sa.Text()}, lambda r: (r.progress, r.worker)
    ),
    Transition.PROGRESS: Effect(
        {
            "progress": sa.Double(),
            "message": sa.Text(),
            "worker": sa.Text(),
            "checkpoint_type": sa.Text(),
            "checkpoint_value": sa.LargeBinary(),
        },
        lambda r: (r.progress, r.message, r.worker, *_packed(r.checkpoint)),
    ),
    Transition.COMPLETE: Effect(
        {"result_type": sa.Text(), "result_value": sa.LargeBinary()}, lambda r: _packed(r.result)
    ),
    Transition.FAIL: Effect({"errors": sa.Text()}, lambda r: (errors_to_json(r.errors),)),
    Transition.RETRY: Effect(
        {"errors": sa.Text(), "delay": Span(), "jitter": sa.Double()},
        lambda r: (errors_to_json(r.errors), r.delay, jitter()),
    ),
    Transition.RELEASE: Effect({"delay": Span()}, lambda r: (r.delay,)),
    Transition.REQUEST_CANCEL: Effect({"grace": Span()}, lambda r: (r.grace,)),
    Transition.ACKNOWLEDGE: _NOTHING,
    Transition.CANCEL: _NOTHING,
    Transition.PURGE: _NOTHING,
}
"""The effects of the transitions that principals request, one operation at a time."""


def sets(transition: Transition, m: Columns) -> Sets:
    """Return the columns that `transition` writes, beside the status and the revision."""
    return _SETS[transition](m)


def progress(m: Columns) -> Sets:
    """Return the columns that a progress update writes."""
    requested, current = m["progress"], _o.progress
    has_checkpoint = m["checkpoint_type"].is_not(None)
    return {
        "progress": sa.case(
            (sa.or_(requested.is_(None), requested < current), current), else_=requested
        ),
        "progress_message": sa.func.coalesce(m["message"], _o.progress_message),
        "progress_time": clock(),
        "progress_request_id": m["request_id"],
        "lease_expire_time": later(clock(), _o.lease),
        "checkpoint_type": sa.func.coalesce(m["checkpoint_type"], _o.checkpoint_type),
        "checkpoint_value": sa.case(
            (has_checkpoint, m["checkpoint_value"]), else_=_o.checkpoint_value
        ),
        # The answer to this write tells the worker that a cancel is requested.
        "cancel_delivered_time": sa.case(
            (
                _o.cancel_request_time.is_not(None),
                sa.func.coalesce(_o.cancel_delivered_time, clock()),
            )
        ),
    }


def started(m: Columns) -> Sets:
    """Return the columns that the start of an attempt writes."""
    return {
        "start_time": clock(),
        "attempt": _o.attempt + _ONE,
        "worker": m["worker"],
        "next_attempt_time": sa.null(),
        "queue_expire_time": sa.null(),
        "run_expire_time": later(clock(), _o.run_timeout),
    }


def failed_attempt() -> Sets:
    """Return the column that counts an attempt which ended badly."""
    return {"failed_attempts": _o.failed_attempts + _ONE}


def has_attempts_left() -> ColumnElement[bool]:
    """Return the condition that another attempt may follow if this one fails."""
    return _o.failed_attempts + _ONE < _o.max_attempts


def is_possible(transition: Transition) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions, beside the status, without which the fallback happens instead."""
    if transition not in {Transition.RETRY, Transition.RELEASE}:
        return ()
    not_cancelled = _o.cancel_request_time.is_(None)
    if transition is Transition.RELEASE:
        return (not_cancelled,)
    return (not_cancelled, has_attempts_left(), _o.expire_time >= clock())


# --- the columns of each transition ---


def _start(m: Columns) -> Sets:
    has_progress = m["progress"].is_not(None)
    return {
        **started(m),
        "progress": m["progress"],
        "progress_time": sa.case((has_progress, clock())),
    }


def _complete(m: Columns) -> Sets:
    return {
        **_ended("complete_time"),
        "progress": sa.literal_column("1.0"),
        "result_type": m["result_type"],
        "result_value": m["result_value"],
    }


def _fail(m: Columns) -> Sets:
    return {**_ended("complete_time"), "errors": m["errors"]}


def _retry(m: Columns) -> Sets:
    longer = scaled(_o.backoff, _o.backoff_multiplier)
    return {
        **_left(sa.func.coalesce(m["delay"], scaled(_o.backoff, m["jitter"]))),
        **failed_attempt(),
        "backoff": shorter(longer, _o.max_backoff),
    }


def _request_cancel(m: Columns) -> Sets:
    return {
        "cancel_request_time": sa.func.coalesce(_o.cancel_request_time, clock()),
        "cancel_expire_time": later(clock(), m["grace"]),
        "cancel_reason": sa.func.coalesce(m["reason"], _o.cancel_reason),
    }


def _cancel(m: Columns) -> Sets:
    reason = sa.func.coalesce(_o.cancel_reason, m["reason"])
    return {**_ended("cancel_time"), "cancel_reason": reason}


_SETS: Final[Mapping[Transition, Callable[[Columns], Sets]]] = {
    Transition.START: _start,
    Transition.PROGRESS: lambda m: {**started(m), **progress(m)},
    Transition.COMPLETE: _complete,
    Transition.FAIL: _fail,
    Transition.RETRY: _retry,
    Transition.RELEASE: lambda m: _left(m["delay"]),
    Transition.REQUEST_CANCEL: _request_cancel,
    Transition.ACKNOWLEDGE: lambda _: _ended("cancel_time"),
    Transition.CANCEL: _cancel,
    Transition.ABANDON: lambda m: {**_fail(m), **failed_attempt()},
    Transition.TIME_OUT: _fail,
    Transition.EXPIRE: _fail,
}


def _ended(time: str) -> Sets:
    """Return the columns of an operation that has ended; `time` is the column of its end."""
    end = latest(_o.start_time, clock())
    cleared = (
        "lease",
        "lease_expire_time",
        "next_attempt_time",
        "queue_expire_time",
        "run_expire_time",
        "cancel_expire_time",
        "checkpoint_type",
        "checkpoint_value",
    )
    return {
        **dict.fromkeys(cleared, sa.null()),
        "expire_time": latest(_o.expire_time, later(end, _o.ttl)),
        time: end,
    }


def _left(pause: ColumnElement[Any]) -> Sets:
    """Return the columns of an operation without an attempt, claimable after a pause.

    With a pause of NULL, or of zero, it is claimable at once.
    """
    cleared = (
        "progress",
        "progress_time",
        "progress_request_id",
        "start_time",
        "worker",
        "lease",
        "lease_expire_time",
        "run_expire_time",
    )
    due = sa.type_coerce(sa.func.coalesce(later(clock(), pause), clock()), Instant())
    return {
        **dict.fromkeys(cleared, sa.null()),
        "next_attempt_time": sa.case((due > clock(), due)),
        "queue_expire_time": later(due, _o.queue_timeout),
    }
