"""Read-only statements: by id, by request_id, by page, and the reason of a refused transition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.domain.transitions import TABLE, Transition
from milepost.storage.predicates import (
    ACCESS_FILTER,
    is_accessible,
    literal_access_filter,
    unexpired,
)
from milepost.storage.prepared import Prepared
from milepost.storage.rows import COLUMNS, SUMMARY_COLUMNS
from milepost.storage.tables import events, operations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement

    from milepost.domain.operation import AccessFilter, NewOperation, OperationId
    from milepost.domain.selection import Position, Selection
    from milepost.domain.transitions import TransitionRequest
    from milepost.storage.database import Database

_o = operations.c


def get(database: Database) -> Prepared:
    """Return the query by id; its last column is the number of the input row."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        return sa.select(*COLUMNS, m["number"]).where(
            _o.id == m["id"], is_accessible(m), unexpired()
        )

    return Prepared(database, {"id": sa.Text(), **ACCESS_FILTER, "number": sa.Integer()}, build)


def refused_operation(request: TransitionRequest) -> sa.Select[Any]:
    """Return the query for the operation of a transition that did not happen.

    The last column is true if the same actor made the same transition before, with the same
    request_id.
    """
    repeated: ColumnElement[bool] = sa.exists().where(
        events.c.operation_id == request.id,
        events.c.transition == request.transition.value,
        events.c.actor == request.actor,
        events.c.request_id == request.request_id,
    )
    if request.transition is Transition.PROGRESS:
        repeated = sa.or_(repeated, _o.progress_request_id == request.request_id)
    return sa.select(*COLUMNS, repeated).where(
        _o.id == request.id,
        is_accessible(literal_access_filter(request.access_filter)),
        unexpired(),
    )


def status_snapshots(operation_ids: Sequence[OperationId]) -> sa.Select[Any]:
    """Return the query for the status of some operations; the last column has the errors.

    Only failed operations have errors; no other payload is read.
    """
    errors = sa.case((_o.status == Status.FAILED.value, _o.errors))
    return sa.select(_o.id, _o.status, _o.revision, _o.attempt, errors).where(
        _o.id.in_(operation_ids)
    )


def last_event(
    operation_id: OperationId, subject: str, request_id: str | None = None
) -> sa.Select[Any]:
    """Return the query for the last event of a removed operation that `subject` may know.

    The owner may know it. An actor who deleted the operation of another owner gets the event only
    for a retry of that call.
    """
    known = events.c.owner == subject
    if request_id is not None:
        repeated = sa.and_(
            events.c.type == TABLE[Transition.PURGE].event,
            events.c.actor == subject,
            events.c.request_id == request_id,
        )
        known = sa.or_(known, repeated)
    return (
        sa.select(events.c.type, events.c.request_id, events.c.actor)
        .where(events.c.operation_id == operation_id, known)
        .order_by(events.c.revision.desc())
        .limit(1)
    )


def of_request(new_operation: NewOperation) -> sa.Select[Any]:
    """Return the query for the operation that was created with the same owner and request_id.

    The last two columns are the fingerprint of that create, and true if it has not expired.
    """
    return sa.select(*COLUMNS, _o.fingerprint, unexpired()).where(
        _o.owner == new_operation.owner, _o.request_id == new_operation.request_id
    )


def select_page(
    access_filter: AccessFilter,
    selection: Selection,
    after: Position | None,
    limit: int,
    *,
    full: bool,
) -> sa.Select[Any]:
    """Return the query for one page, newest first, by keyset: its cost does not grow with depth."""
    query = (
        sa.select(*(COLUMNS if full else SUMMARY_COLUMNS))
        .where(unexpired(), *_selected(selection))
        .order_by(_o.create_time.desc(), _o.id.desc())
        .limit(limit)
    )
    if not access_filter.everything:
        query = query.where(_o.owner == access_filter.subject)
    if after is not None:
        query = query.where(
            sa.tuple_(_o.create_time, _o.id)
            < sa.tuple_(sa.literal(after.create_time, _o.create_time.type), sa.literal(after.id))
        )
    return query


def _selected(selection: Selection) -> Iterator[ColumnElement[bool]]:
    if selection.owner is not None:
        yield _o.owner == selection.owner
    if selection.function is not None:
        yield _o.function == selection.function
    if selection.statuses:
        yield _o.status.in_([status.value for status in selection.statuses])
    if selection.create_time_from is not None:
        yield _o.create_time >= selection.create_time_from
    if selection.create_time_to is not None:
        yield _o.create_time < selection.create_time_to
