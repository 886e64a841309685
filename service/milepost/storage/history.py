"""The reads of what has become of operations: their revisions, and their changes of status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from milepost.domain.history import StatusChange
from milepost.domain.transitions import STARTING, Transition
from milepost.storage.engine import Prepared
from milepost.storage.predicates import unexpired
from milepost.storage.tables import events, operations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Dialect

    from milepost.domain.operation import OperationId


def revisions(dialect: Dialect) -> Prepared:
    """Return the read of the revisions of many operations, as far as they are visible."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        o = operations.c
        return sa.select(o.id, o.revision).where(o.id == m["id"], unexpired())

    return Prepared(dialect, {"id": sa.Text()}, build)


def status_changes(
    operation_id: OperationId, after: int, before: int, limit: int
) -> sa.Select[Any]:
    """Return the read of the changes of status between two revisions, oldest first.

    A change that only a newer release knows is left out: nothing is known of where it led.
    """
    e = events.c
    starts = sa.case((e.transition.in_(sorted(STARTING)), 1), else_=0)
    mine = (
        sa.select(
            e.revision,
            e.transition,
            e.time,
            sa.func.sum(starts).over(order_by=e.revision).label("attempt"),
        )
        .where(e.operation_id == operation_id, e.revision < before)
        .subquery("mine")
    )
    return (
        sa.select(mine)
        .where(mine.c.revision > after, mine.c.transition.in_(sorted(Transition)))
        .order_by(mine.c.revision)
        .limit(limit)
    )


def status_change_from(row: Sequence[Any]) -> StatusChange:
    """Return the change of status of one row."""
    revision, transition, time, attempt = row
    return StatusChange(
        revision=revision, transition=Transition(transition), time=time, attempt=int(attempt)
    )
