"""The history of operations in a SQL database: revisions and status changes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from milepost.domain.history import Event, StatusChange
from milepost.domain.pages import Page
from milepost.domain.transitions import Transition
from milepost.storage.answer_size import event_bytes
from milepost.storage.dialects import long_before, not_before
from milepost.storage.predicates import unexpired
from milepost.storage.prepared import Prepared
from milepost.storage.rows import errors_from_json
from milepost.storage.tables import events, operations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement

    from milepost.domain.operation import OperationId
    from milepost.storage.batchers import Batchers
    from milepost.storage.database import Database
    from milepost.storage.session import AnyRow


class SqlHistoryStore:
    """Implementation of the port `HistoryStore`."""

    def __init__(self, batchers: Batchers) -> None:
        """Compile every statement once."""
        self._batchers = batchers
        self._revisions = revisions(batchers.database)

    async def revisions(self, ids: Sequence[OperationId]) -> Mapping[OperationId, int]:
        """See `HistoryStore.revisions`."""
        rows = [(operation_id,) for operation_id in ids]
        return dict(await self._batchers.read(lambda session: session.read(self._revisions, rows)))

    async def status_changes(
        self, operation_id: OperationId, *, after: int, before: int, limit: int
    ) -> Sequence[StatusChange]:
        """See `HistoryStore.status_changes`."""
        query = status_changes(operation_id, after, before, limit)
        rows = await self._batchers.read(lambda session: session.fetch(query))
        return [_status_change(row) for row in rows]

    async def events(
        self, operation_id: OperationId, *, after: int, limit: int, max_bytes: int
    ) -> Page[Event]:
        """See `HistoryStore.events`."""
        query = select_events(operation_id, after, limit, max_bytes)
        rows = await self._batchers.read(lambda session: session.fetch(query))
        found = rows[0].found if rows else 0
        return Page(items=[_event(row) for row in rows], is_last=len(rows) == found)


@functools.cache
def revisions(database: Database) -> Prepared:
    """Return the query for the revisions of many operations; expired ones are left out."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        o = operations.c
        return sa.select(o.id, o.revision).where(o.id == m["id"], unexpired())

    return Prepared(database, {"id": sa.Text()}, build)


def status_changes(
    operation_id: OperationId, after: int, before: int, limit: int
) -> sa.Select[Any]:
    """Return the query for the status changes between two revisions, oldest first.

    A change that only a newer release knows is left out, because its target status is unknown.
    """
    e = events.c
    return (
        sa.select(e.revision, e.transition, e.time, e.attempt)
        .where(
            e.operation_id == operation_id,
            _since_creation(e.time, operation_id),
            e.revision > after,
            e.revision < before,
            e.transition.in_(sorted(Transition)),
        )
        .order_by(e.revision)
        .limit(limit)
    )


def select_events(
    operation_id: OperationId, after: int, limit: int, max_bytes: int
) -> sa.Select[Any]:
    """Return the query for the events of an operation after a revision, oldest first.

    The event that begins an attempt holds the name of its worker. The last column is the number of
    events from which the page was cut: one more than `limit` if there are so many.
    """
    e, beginning = events.c, events.alias("beginning")
    measured = _measured(operation_id, after, limit)
    worker = (
        sa.select(beginning.c.worker)
        .where(
            beginning.c.operation_id == e.operation_id,
            _since_creation(beginning.c.time, operation_id),
            beginning.c.attempt == e.attempt,
            beginning.c.worker.is_not(None),
        )
        .order_by(beginning.c.revision)
        .limit(1)
        .correlate(events)
        .scalar_subquery()
    )
    columns = (e.revision, e.type, e.transition, e.time, e.actor, e.attempt, e.reason, e.errors)
    fits = sa.or_(measured.c.position == 1, measured.c.total <= max_bytes)
    return (
        sa.select(*columns, worker.label("worker"), measured.c.found)
        .join(measured, measured.c.revision == e.revision)
        .where(
            e.operation_id == operation_id,
            _since_creation(e.time, operation_id),
            measured.c.position <= limit,
            fits,
        )
        .order_by(e.revision)
    )


def _measured(operation_id: OperationId, after: int, limit: int) -> sa.CTE:
    """Return the next events with their place and the bytes up to each of them."""
    e = events.c
    found = (
        sa.select(e.revision, event_bytes(events).label("bytes"))
        .where(
            e.operation_id == operation_id,
            _since_creation(e.time, operation_id),
            e.revision > after,
        )
        .order_by(e.revision)
        .limit(limit + 1)
        .cte("found")
    )
    order = found.c.revision
    return sa.select(
        found.c.revision,
        sa.func.row_number().over(order_by=order).label("position"),
        sa.func.sum(found.c.bytes).over(order_by=order, rows=(None, 0)).label("total"),
        sa.func.count().over().label("found"),
    ).cte("measured")


def _since_creation(
    time: ColumnElement[datetime], operation_id: OperationId
) -> ColumnElement[bool]:
    """Return a condition that every event of an operation meets; see `not_before`.

    The events of an operation that is removed meanwhile meet it too.
    """
    o = operations.c
    created = sa.select(o.create_time).where(o.id == operation_id).scalar_subquery()
    return not_before(time, sa.func.coalesce(created, long_before()))


def _event(row: AnyRow) -> Event:
    return Event(
        revision=row.revision,
        type=row.type,
        transition=row.transition,
        time=row.time,
        actor=row.actor,
        attempt=row.attempt,
        worker=row.worker,
        reason=row.reason,
        errors=errors_from_json(row.errors) if row.errors else (),
    )


def _status_change(row: AnyRow) -> StatusChange:
    return StatusChange(
        revision=row.revision,
        transition=Transition(row.transition),
        time=row.time,
        attempt=row.attempt,
    )
