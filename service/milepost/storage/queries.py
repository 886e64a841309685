"""Read-only statements that explain refused calls: by request_id, and by the last event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from milepost.domain.transitions import ACTIVE, FALLBACK, TABLE, Transition
from milepost.storage.dialects import not_before
from milepost.storage.predicates import (
    indexed_status,
    is_accessible,
    literal_access_filter,
    unexpired,
)
from milepost.storage.rows import COLUMNS
from milepost.storage.tables import events, operations

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from milepost.domain.operation import NewOperation, OperationId
    from milepost.domain.transitions import TransitionRequest

_o = operations.c


def refused_operation(request: TransitionRequest) -> sa.Select[Any]:
    """Return the query for the operation of a transition that did not happen.

    The last column is true if the same actor made the same transition, or its fallback, before,
    with the same request_id.
    """
    names = {request.transition, FALLBACK.get(request.transition, request.transition)}
    repeated: ColumnElement[bool] = sa.exists().where(
        events.c.operation_id == request.id,
        not_before(events.c.time, _o.create_time),
        events.c.transition.in_(sorted(names)),
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


def of_unique_key(new_operation: NewOperation) -> sa.Select[Any]:
    """Return the query for the active operation of the same owner and unique_key.

    The last column is true if it has not expired.
    """
    return sa.select(*COLUMNS, unexpired()).where(
        _o.owner == new_operation.owner,
        _o.unique_key == new_operation.unique_key,
        indexed_status(operations, ACTIVE),
    )
