"""The statements that only read: by id, by request, page by page, and why a move did not happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.lifecycle import TABLE, Move
from milepost.domain.operation import Status
from milepost.storage.engine import Prepared
from milepost.storage.rows import COLUMNS, SUMMARY_COLUMNS
from milepost.storage.scoping import SCOPE, in_scope, literal_scope, visible
from milepost.storage.tables import events, operations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Dialect

    from milepost.domain.lifecycle import Change
    from milepost.domain.operation import Draft, OperationId, Scope
    from milepost.domain.ports import Position, Selection

_o = operations.c

PING: Final = sa.select(sa.literal_column("1", sa.Integer))


def get(dialect: Dialect) -> Prepared:
    """Return the read by id; the number of the input row comes last."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        return sa.select(*COLUMNS, m["number"]).where(_o.id == m["id"], in_scope(m), visible())

    return Prepared(dialect, {"id": sa.Text(), **SCOPE, "number": sa.Integer()}, build)


def why_not(change: Change) -> sa.Select[Any]:
    """Return the one read that says why a change did not happen, within its scope.

    The last column tells whether the same actor has made this very move before, with the same
    request_id.
    """
    repeated: ColumnElement[bool] = sa.exists().where(
        events.c.operation_id == change.id,
        events.c.move == change.move.value,
        events.c.actor == change.actor,
        events.c.request_id == change.request_id,
    )
    if change.move is Move.PROGRESS:
        repeated = sa.or_(repeated, _o.progress_request_id == change.request_id)
    return sa.select(*COLUMNS, repeated).where(
        _o.id == change.id, in_scope(literal_scope(change.scope)), visible()
    )


def standings(operation_ids: Sequence[OperationId]) -> sa.Select[Any]:
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
            events.c.type == TABLE[Move.FORGET].event,
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


def of_request(draft: Draft) -> sa.Select[Any]:
    """Return the read of the operation that was created with the draft's request_id.

    The last two columns are the fingerprint of that create and whether it is still visible.
    """
    return sa.select(*COLUMNS, _o.fingerprint, visible()).where(
        _o.owner == draft.owner, _o.request_id == draft.request_id
    )


def select_page(
    scope: Scope, selection: Selection, after: Position | None, limit: int, *, full: bool
) -> sa.Select[Any]:
    """Return the read of one page, newest first, by keyset: its cost does not grow with depth."""
    query = (
        sa.select(*(COLUMNS if full else SUMMARY_COLUMNS))
        .where(visible(), *_selected(selection))
        .order_by(_o.create_time.desc(), _o.id.desc())
        .limit(limit)
    )
    if not scope.everything:
        query = query.where(_o.owner == scope.subject)
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
