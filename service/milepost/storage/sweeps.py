"""Sweeps: transitions of due operations in batches, each one transaction, on every replica.

Only the clock of the database decides which operations are due. On PostgreSQL selection, transition
and events are one statement, which skips rows that another sweeper has locked.
"""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from milepost.domain.event_days import EventDays
from milepost.domain.operation import OperationError
from milepost.domain.sweep import (
    ABANDON,
    CANCEL,
    CANCEL_LOST,
    PURGE,
    RELEASE,
    RETRY,
    RUN_OUT,
    SWEEPS,
    TIME_OUT,
    Sweep,
)
from milepost.domain.transitions import TABLE, Transition
from milepost.storage import event_days
from milepost.storage.batchers import alone, atomic
from milepost.storage.creation import SWEEPER
from milepost.storage.dialects import Span, clock
from milepost.storage.effects import (
    failed_attempt,
    has_attempts_left,
    is_possible,
    jitter,
    sets,
)
from milepost.storage.event_partitions import events_default
from milepost.storage.event_writer import REQUEST_INPUTS, EventWriter
from milepost.storage.predicates import has_status, indexed_status
from milepost.storage.prepared import Prepared
from milepost.storage.rows import COLUMNS, SUMMARY_COLUMNS, RowReader, errors_to_json
from milepost.storage.serving_periods import could_be_renewed, note_serving
from milepost.storage.statements import expiring
from milepost.storage.tables import events, operations

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import ColumnElement

    from milepost.domain.operation import Operation
    from milepost.storage.batchers import Batchers
    from milepost.storage.database import Database
    from milepost.storage.session import Session

Found = TypeVar("Found")

_o = operations.c

_INPUTS: Final = {
    **REQUEST_INPUTS,
    "errors": sa.Text(),
    "jitter": sa.Double(),
    "max_operations": sa.Integer(),
}
_NO_TIME: Final = timedelta()
TURN_S: Final = 0.1
"""Time after which a sweep lets the other writers of a database with one writer go on."""


def due(
    sweep: Sweep, since: timedelta = _NO_TIME
) -> tuple[tuple[ColumnElement[bool], ...], ColumnElement[Any]]:
    """Return the conditions that `sweep` is overdue by `since`, and its order."""
    now: ColumnElement[Any] = clock()
    if since:
        now = sa.type_coerce(now.op("-")(sa.literal(since, Span)), _o.expire_time.type)
    conditions, order = _conditions(sweep, now)
    return (indexed_status(operations, sweep.sources), *conditions), order


def _conditions(
    sweep: Sweep, now: ColumnElement[Any]
) -> tuple[tuple[ColumnElement[bool], ...], ColumnElement[Any]]:
    not_cancelled = _o.cancel_request_time.is_(None)
    by_time = {CANCEL: _o.cancel_expire_time, TIME_OUT: _o.queue_expire_time}
    by_lease = {
        CANCEL_LOST: sa.not_(not_cancelled),
        ABANDON: sa.and_(not_cancelled, sa.not_(has_attempts_left())),
        RELEASE: sa.and_(not_cancelled, has_attempts_left()),
    }
    by_run = {
        RETRY: sa.and_(*is_possible(Transition.RETRY)),
        RUN_OUT: sa.not_(sa.and_(*is_possible(Transition.RETRY))),
    }
    if sweep in by_lease:
        return (*_lease_expired(now), could_be_renewed(), by_lease[sweep]), _o.id
    if sweep in by_run:
        return (_o.run_expire_time < now, by_run[sweep]), _o.run_expire_time
    time = by_time.get(sweep, _o.expire_time)
    return (time < now,), time


def _lease_expired(now: ColumnElement[Any]) -> tuple[ColumnElement[bool], ...]:
    # Expired operations are not released to another worker.
    return (_o.lease.is_not(None), _o.lease_expire_time < now, _o.expire_time >= now)


@functools.cache
def sweep_statement(database: Database, sweep: Sweep) -> EventWriter:
    """Return the statement that makes the transition of `sweep` in some due operations."""
    transition = sweep.transition
    counts = failed_attempt() if sweep is RELEASE else {}

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        conditions, order = due(sweep)
        rule = TABLE[transition]
        # The reason of a sweep is that of its event; an operation keeps the reason of its owner.
        written = {"delay": sa.null(), **m, "reason": sa.null()}
        picked = (
            sa.select(_o.id)
            .where(*conditions)
            .order_by(order)
            .limit(m["max_operations"])
            .with_for_update(skip_locked=True)
            .cte("picked")
        )
        selected = (_o.id.in_(sa.select(picked.c.id)), has_status(operations, sweep.sources))
        if rule.target is None:
            return sa.delete(operations).where(*selected).returning(*COLUMNS)
        return (
            sa.update(operations)
            .where(*selected)
            .values(
                status=sa.literal_column(f"'{rule.target}'"),
                revision=_o.revision + sa.literal_column("1", sa.Integer),
                **sets(transition, written),
                **counts,
            )
            .returning(*SUMMARY_COLUMNS)
        )

    if transition is Transition.PURGE:
        return expiring(database, _INPUTS, build)
    return EventWriter(database, _INPUTS, build, transition=transition)


@functools.cache
def purge_events_statement(database: Database) -> Prepared:
    """Return the statement that removes all events of operations that were purged long ago."""
    # On PostgreSQL only the events without a day of their own; days are dropped as a whole.
    rows = events_default if database.has_event_days else events

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        last = rows.alias("last")
        old = sa.type_coerce(clock().op("-")(m["kept"]), last.c.time.type)
        purged = (
            sa.select(last.c.operation_id)
            .where(
                last.c.transition == sa.literal_column(f"'{Transition.PURGE}'"),
                last.c.revision > sa.literal_column("1"),
                last.c.time < old,
            )
            .order_by(last.c.time)
            .limit(m["max_operations"])
            .with_for_update(skip_locked=True)
            .cte("purged")
        )
        return (
            sa.delete(rows)
            .where(rows.c.operation_id.in_(sa.select(purged.c.operation_id)))
            .returning(rows.c.operation_id)
        )

    return Prepared(database, {"kept": Span(), "max_operations": sa.Integer()}, build)


def count(
    sweep: Sweep, *, since: timedelta = _NO_TIME, max_operations: int | None = None
) -> sa.Select[Any]:
    """Return the count of operations due for longer than `since`, up to `max_operations`."""
    conditions, order = due(sweep, since)
    found = sa.select(_o.id).where(*conditions)
    if max_operations is not None:
        found = found.order_by(order).limit(max_operations)
    return sa.select(sa.func.count()).select_from(found.subquery())


def count_spared(max_operations: int) -> sa.Select[Any]:
    """Return the count of expired leases that can still be renewed, up to `max_operations`."""
    found = sa.select(_o.id).where(
        indexed_status(operations, RELEASE.sources),
        *_lease_expired(clock()),
        sa.not_(could_be_renewed()),
    )
    limited = found.order_by(_o.id).limit(max_operations)
    return sa.select(sa.func.count()).select_from(limited.subquery())


def _without_payloads(operation: Operation) -> Operation:
    """Return the operation without its payloads, which the sweeper does not need."""
    if operation.result is None and operation.metadata is None and not operation.errors:
        return operation  # a database may have left them out already
    return replace(operation, result=None, errors=(), metadata=None)


class SqlSweepStore:
    """Implementation of the port `SweepStore`."""

    def __init__(self, batchers: Batchers) -> None:
        """Compile every statement once."""
        self._batchers = batchers
        self._rows = RowReader(batchers.database)
        self._statements = {sweep: sweep_statement(batchers.database, sweep) for sweep in SWEEPS}
        self._events = purge_events_statement(batchers.database)

    async def sweep(self, sweep: Sweep, max_operations: int) -> list[Operation]:
        """See `SweepStore.sweep`."""
        return await self._submit(lambda session: self._sweep(session, sweep, max_operations))

    async def purge_events(self, kept: timedelta, max_operations: int) -> int:
        """See `SweepStore.purge_events`."""
        return await self._submit(lambda session: self._purge_events(session, kept, max_operations))

    async def keep_event_days(self, kept: timedelta) -> EventDays:
        """See `SweepStore.keep_event_days`."""
        days = EventDays()
        if not self._batchers.database.has_event_days:
            return days
        while step := await self._submit(lambda session: event_days.step(session, kept)):
            days = days + step
            if not step.is_permitted:
                break
        return days

    async def due(self, sweep: Sweep) -> int:
        """See `SweepStore.due`."""
        return await self._count(count(sweep))

    async def overdue(self, sweep: Sweep, since: timedelta, max_operations: int) -> int:
        """See `SweepStore.overdue`."""
        return await self._count(count(sweep, since=since, max_operations=max_operations))

    async def spared(self, max_operations: int) -> int:
        """See `SweepStore.spared`."""
        return await self._count(count_spared(max_operations))

    async def note_serving(self) -> timedelta | None:
        """See `SweepStore.note_serving`."""
        return await self._batchers.writes.submit(atomic(note_serving), None, object())

    async def _count(self, query: sa.Select[Any]) -> int:
        ((found,),) = await self._batchers.read(lambda session: session.fetch(query))
        return int(found)

    def _submit(self, run: Callable[[Session], Found]) -> asyncio.Future[Found]:
        return self._batchers.sweeps.submit(alone(run), None, object())

    def _sweep(self, session: Session, sweep: Sweep, max_operations: int) -> list[Operation]:
        """Change up to `max_operations` due operations, with their events."""
        errors = (
            errors_to_json((OperationError(code=sweep.code, message=sweep.reason),))
            if sweep.code is not None
            else None
        )
        found: list[Operation] = []
        for wanted in self._portions(max_operations, has_payloads=sweep is PURGE):
            values = (SWEEPER, None, sweep.reason, errors, jitter(), wanted)
            rows = session.run(self._statements[sweep], [values])
            found += [_without_payloads(self._rows.operation(row)) for row in rows]
            if len(rows) < wanted:
                break
        return found

    def _purge_events(self, session: Session, kept: timedelta, max_operations: int) -> int:
        """Remove the events of up to `max_operations` operations; return how many."""
        purged = 0
        for wanted in self._portions(max_operations, has_payloads=True):
            rows = session.run(self._events, [(kept, wanted)])
            found = len({operation_id for (operation_id,) in rows})
            purged += found
            if found < wanted:
                break
        return purged

    def _portions(self, max_operations: int, *, has_payloads: bool) -> Iterator[int]:
        """Return how many operations each statement of a transaction takes, until its time is over.

        A database with one writer gets a single one first, and twice as many while they are quick:
        the next writer waits for the transaction, and fails if it takes too long.
        """
        database = self._batchers.database
        max_portion = database.max_purged if has_payloads else database.max_swept
        max_portion = max_portion or max_operations
        portion = 1 if database.has_one_writer else max_portion
        begun, taken = time.monotonic(), 0
        while taken < max_operations:
            last = time.monotonic()
            yield min(portion, max_operations - taken)
            now, taken = time.monotonic(), taken + portion
            if now - begun >= TURN_S:
                return
            if now - last < TURN_S / 10:
                portion = min(2 * portion, max_portion)
