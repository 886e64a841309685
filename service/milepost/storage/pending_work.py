"""The statements that look for pending operations, and make those claimable that fall due."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.transitions import CLAIMABLE
from milepost.storage.claim_statement import claimable, in_order
from milepost.storage.dialects import Span, clock, json_pairs
from milepost.storage.predicates import has_status, indexed_status
from milepost.storage.prepared import Prepared
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement

    from milepost.storage.database import Database

_o = operations.c
_ONE: Final = sa.literal_column("1", sa.Integer)


@functools.cache
def pending_statement(database: Database) -> Prepared:
    """Return the query for those functions of an array that have work: one index lookup for each.

    The second text of each pair is not used.
    """

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        requested = (
            json_pairs(m["functions"]).table_valued(sa.column("a", sa.Text)).alias("requested")
        )
        work = operations.alias("work")
        any_work = (
            sa.select(_ONE)
            .select_from(work)
            .where(*claimable(work, requested.c.a))
            # Keeps the planner from a scan; backwards as in `claim_statement`.
            .order_by(work.c.owner.desc(), *in_order(work, backwards=True))
            .limit(_ONE)
            .correlate(requested)
            .scalar_subquery()
        )
        return sa.select(requested.c.a).where(any_work.is_not(None))

    return Prepared(database, {"functions": sa.Text()}, build)


@functools.cache
def wake_statement(database: Database) -> Prepared:
    """Return the statement that makes waiting operations claimable whose time has come."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> Any:
        due = (
            sa.select(_o.id)
            .where(*_waiting(), _o.next_attempt_time <= clock())
            .order_by(_o.next_attempt_time)
            .limit(m["max_operations"])
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        return (
            sa.update(operations)
            .where(_o.id.in_(sa.select(due.c.id)), has_status(operations, CLAIMABLE))
            .values(next_attempt_time=sa.null())
            .returning(_o.function)
        )

    return Prepared(database, {"max_operations": sa.Integer()}, build)


@functools.cache
def next_due_statement(database: Database) -> Prepared:
    """Return the query for the time until the next waiting operation is due; no row for none."""
    left = sa.type_coerce(_o.next_attempt_time.op("-")(clock()), Span())
    query = sa.select(left).where(*_waiting()).order_by(_o.next_attempt_time).limit(_ONE)
    return Prepared(database, {}, lambda _: query)


def _waiting() -> tuple[ColumnElement[bool], ...]:
    return indexed_status(operations, CLAIMABLE), _o.next_attempt_time.is_not(None)
