"""Read-only statements: by id, by request, by page, and why a transition was refused."""

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
    """Return the read by id; the number of the input row comes last."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        return sa.select(*COLUMNS, m["number"]).where(
            _o.id == m["id"], is_accessible(m), unexpired()
        )

    return Prepared(database, {"id": sa.Text(), **ACCESS_FILTER, "number": sa.Integer()}, build)


def why_not(change: TransitionRequest) -> sa.Select[Any]:
    """Return the one read that says why a change did not happen, within its scope.

    The last column tells whether the same actor has made this very move before, with the same
    request_id.
    """
    repeated: ColumnElement[bool] = sa.exists().where(
        events.c.operation_id == change.id,
        events.c.transition == change.transition.value,
        events.c.actor == change.actor,
        events.c.request_id == change.request_id,
    )
    if change.transition is Transition.PROGRESS:
        repeated = sa.or_(repeated, _o.progress_request_id == change.request_id)
    return sa.select(*COLUMNS, repeated).where(
        _o.id == change.id, is_accessible(literal_access_filter(change.access_filter)), unexpired()
    )


def status_snapshots(operation_ids: Sequence[OperationId]) -> sa.Select[Any]:
    """Return the read of how some operations stand; the last column has the errors of failed ones.

    Nothing large is read of the others.
    """
    errors = sa.case((_o.status == Status.FAILED.value, _o.errors))
    return sa.select(_o.id, _o.status, _o.revision, _o.attempt, errors).where(
        _o.id.in_(operation_ids)
    )


def last_event(
    operation_id: OperationId, subject: str, request_id: str | None = None
) -> sa.Select[Any]:
    """Return the read of what last happened to an operation that is gone, if it was theirs.

    Who deleted an operation of another is told so only when it repeats that call.
    """
    theirs = events.c.owner == subject
    if request_id is not None:
        repeated = sa.and_(
            events.c.type == TABLE[Transition.PURGE].event,
            events.c.actor == subject,
            events.c.request_id == request_id,
        )
        theirs = sa.or_(theirs, repeated)
    return (
        sa.select(events.c.type, events.c.request_id, events.c.actor)
        .where(events.c.operation_id == operation_id, theirs)
        .order_by(events.c.revision.desc())
        .limit(1)
    )


def of_request(new_operation: NewOperation) -> sa.Select[Any]:
    """Return the read of the operation that was created with the draft's request_id.

    The last two columns are the fingerprint of that create and whether it is still visible.
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
    """Return the read of one page, newest first, by keyset: its cost does not grow with depth."""
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
