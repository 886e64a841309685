"""Sweeps: what is due is found and moved in batches, each one transaction, on every replica.

The clock of the database alone decides what is due. On PostgreSQL finding, moving and recording
are one statement, and what another sweeper has in its hands is passed over.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.lifecycle import EXPIRED, LEASE_LOST, TABLE, Move
from milepost.domain.operation import OperationError, Status
from milepost.storage.dialects import Span, clock
from milepost.storage.engine import Prepared
from milepost.storage.operations import SWEEPER
from milepost.storage.recording import ASKED, Recording
from milepost.storage.rows import COLUMNS, SUMMARY_COLUMNS, RowReader, errors_to_json
from milepost.storage.scoping import is_among
from milepost.storage.statements import expiring, sets
from milepost.storage.tables import events, operations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Dialect

    from milepost.domain.operation import Operation
    from milepost.storage.engine import Session

_o = operations.c

REASONS: Final[Mapping[Move, str]] = {
    Move.RELEASE: "the lease ran out",
    Move.ABANDON: "the lease of the last attempt ran out",
    Move.EXPIRE: "the operation ran past its expire_time",
    Move.FORGET: "the operation was past its expire_time",
}
"""Why the sweeper makes each of its moves."""
_CODES: Final = {Move.ABANDON: LEASE_LOST, Move.EXPIRE: EXPIRED}
_INPUTS: Final = {**ASKED, "errors": sa.Text(), "most": sa.Integer()}
_NO_TIME: Final = timedelta()
_PIECE: Final = 10
"""Operations that are removed at once where their payloads pass through this process on the way to
their deliveries, as on SQLite: one may have 2 MiB."""


def due(
    move: Move, since: timedelta = _NO_TIME
) -> tuple[tuple[ColumnElement[bool], ...], ColumnElement[Any]]:
    """Return when `move` has been due for longer than `since`, and the order to make it in."""
    now: ColumnElement[Any] = clock()
    if since:
        now = sa.type_coerce(now.op("-")(sa.literal(since, Span)), _o.expire_time.type)
    processing = _o.status == sa.literal_column(f"'{Status.PROCESSING}'")
    # What has expired altogether is not handed to another worker.
    lost = (processing, _o.lease.is_not(None), _o.lease_expire_time < now, _o.expire_time >= now)
    match move:
        case Move.RELEASE:
            return (*lost, _o.attempt < _o.max_attempts), _o.id
        case Move.ABANDON:
            return (*lost, _o.attempt >= _o.max_attempts), _o.id
        case Move.EXPIRE:
            return (processing, _o.expire_time < now), _o.expire_time
        case Move.FORGET:
            return (sa.not_(processing), _o.expire_time < now), _o.expire_time
        case _:
            raise ValueError(move)


def sweeping(dialect: Dialect, move: Move) -> Recording:
    """Return the statement that makes `move` of some operations that are due."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        conditions, order = due(move)
        rule = TABLE[move]
        picked = (
            sa.select(_o.id)
            .where(*conditions)
            .order_by(order)
            .limit(m["most"])
            .with_for_update(skip_locked=True)
            .cte("picked")
        )
        these = (_o.id.in_(sa.select(picked.c.id)), is_among(operations, rule.leaves))
        if rule.enters is None:
            return sa.delete(operations).where(*these).returning(*COLUMNS)
        return (
            sa.update(operations)
            .where(*these)
            .values(
                status=sa.literal_column(f"'{rule.enters}'"),
                revision=_o.revision + sa.literal_column("1", sa.Integer),
                **sets(move, m),
            )
            .returning(*SUMMARY_COLUMNS)
        )

    if move is Move.FORGET:
        return expiring(dialect, _INPUTS, build)
    return Recording(dialect, _INPUTS, build, move=move)


def forgetting_events(dialect: Dialect) -> Prepared:
    """Return the removal of all events of operations whose last one, their removal, is old."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        last = events.alias("last")
        old = sa.type_coerce(clock().op("-")(m["kept"]), last.c.time.type)
        gone = (
            sa.select(last.c.operation_id)
            .where(
                last.c.move == sa.literal_column(f"'{Move.FORGET}'"),
                last.c.revision > sa.literal_column("1"),
                last.c.time < old,
            )
            .order_by(last.c.time)
            .limit(m["most"])
            .with_for_update(skip_locked=True)
            .cte("gone")
        )
        return (
            sa.delete(events)
            .where(events.c.operation_id.in_(sa.select(gone.c.operation_id)))
            .returning(events.c.operation_id)
        )

    return Prepared(dialect, {"kept": Span(), "most": sa.Integer()}, build)


def count(move: Move, *, since: timedelta = _NO_TIME, most: int | None = None) -> sa.Select[Any]:
    """Return the count of what has been due for longer than `since`, up to `most`."""
    conditions, order = due(move, since)
    found = sa.select(_o.id).where(*conditions)
    if most is not None:
        found = found.order_by(order).limit(most)
    return sa.select(sa.func.count()).select_from(found.subquery())


def _light(operation: Operation) -> Operation:
    """Return it without its payloads: nobody reads those of what has been swept."""
    return operation._replace(result=None, errors=(), metadata=None)


class Sweeps:
    """The sweeper's moves. Holds statements, not data."""

    def __init__(self, dialect: Dialect) -> None:
        """Build and compile every statement once."""
        self._rows = RowReader(dialect)
        self._moves = {move: sweeping(dialect, move) for move in REASONS}
        self._events = forgetting_events(dialect)
        self._in_pieces = frozenset({Move.FORGET} if dialect.name == "sqlite" else ())

    def sweep(self, session: Session, move: Move, most: int) -> list[Operation]:
        """Make `move` of up to `most` operations that are due, with their events."""
        reason = REASONS[move]
        errors = (
            errors_to_json((OperationError(code=_CODES[move], message=reason),))
            if move in _CODES
            else None
        )
        piece = _PIECE if move in self._in_pieces else most
        found: list[Operation] = []
        while len(found) < most:
            wanted = min(piece, most - len(found))
            rows = session.run(self._moves[move], [(SWEEPER, None, reason, errors, wanted)])
            found += [_light(self._rows.operation(row)) for row in rows]
            if len(rows) < wanted:
                break
        return found

    def forget_events(self, session: Session, kept: timedelta, most: int) -> int:
        """Remove the events of up to `most` operations; return how many operations these were."""
        rows = session.run(self._events, [(kept, most)])
        return len({operation_id for (operation_id,) in rows})
