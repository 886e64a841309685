"""The workload: active operations by function, the age of pending ones, the oldest due delivery.

The statements skip from function to function through an index, and count along indexes. The numbers
of functions and of counted operations are bounded, so the cost does not grow with the tables.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.delivery import DeliveryStatus
from milepost.domain.transitions import ACTIVE, CLAIMABLE
from milepost.domain.workload import FunctionLoad, Workload
from milepost.storage.dialects import Span, clock
from milepost.storage.predicates import indexed_status, ordered_status
from milepost.storage.tables import deliveries, events, operations

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from milepost.storage.batchers import Batchers
    from milepost.storage.session import AnyRow, Session

_NONE: Final = timedelta()
_STATUSES: Final = tuple(sorted(ACTIVE))
_ONE: Final = sa.literal_column("1", sa.Integer)


AGED: Final = 5
"""Of so many operations that may be counted, one may be read for the age of the oldest."""


def functions_query(max_functions: int) -> sa.Select[Any]:
    """Return the query for the first functions by name."""
    walk = _functions(max_functions)
    return sa.select(walk.c.function).where(walk.c.function.is_not(None))


def load_query(max_functions: int, max_operations: int) -> sa.Select[Any]:
    """Return the query for the load of the first functions by name.

    Args:
        max_functions: functions that are visited.
        max_operations: operations that are counted for each function and status.
    """
    walk = _functions(max_functions)
    return sa.select(
        walk.c.function,
        *(_count(walk, status, max_operations).label(status) for status in _STATUSES),
        _oldest_age(walk, max(1, max_operations // AGED)).label("oldest_age"),
    ).where(walk.c.function.is_not(None))


def overdue_query() -> sa.Select[Any]:
    """Return the query for the time since the oldest unsettled delivery was due."""
    d = deliveries.c
    due = sa.case((d.create_time > d.next_attempt_time, d.create_time), else_=d.next_attempt_time)
    return (
        sa.select(sa.type_coerce(clock().op("-")(due), Span()))
        .where(d.status == sa.literal_column(f"'{DeliveryStatus.PENDING}'"))
        .order_by(d.next_attempt_time)
        .limit(1)
    )


def _functions(max_functions: int) -> sa.CTE:
    """Skip from function to function through the index of the lists by function."""
    first = sa.select(
        _next_function(sa.literal_column("''")).label("function"), _ONE.label("number")
    ).cte("walk", recursive=True)
    following = sa.select(_next_function(first.c.function, first), first.c.number + _ONE).where(
        first.c.function.is_not(None), first.c.number < max_functions
    )
    return first.union_all(following)


def _next_function(after: ColumnElement[Any], *outer: sa.FromClause) -> sa.ScalarSelect[str]:
    o = operations.alias("next")
    return (
        sa.select(o.c.function)
        .where(o.c.function > after)
        .order_by(o.c.function, o.c.status, o.c.create_time, o.c.id)
        .limit(1)
        .correlate(*outer)
        .scalar_subquery()
    )


def _count(walk: sa.CTE, status: Any, max_operations: int) -> sa.ScalarSelect[int]:
    o = operations.alias("counted")
    found = (
        sa.select(o.c.id)
        .where(o.c.function == walk.c.function, ordered_status(o.c.status, status))
        .order_by(o.c.create_time, o.c.id)
        .limit(max_operations)
        .correlate(walk)
        .subquery()
    )
    return sa.select(sa.func.count()).select_from(found).scalar_subquery()


def _oldest_age(walk: sa.CTE, max_operations: int) -> sa.ScalarSelect[Any]:
    """Return the longest wait of the claimable operations of a function.

    A wait begins at the create or the scheduled time, or at the end of the last attempt.
    """
    o, entered = operations.alias("waiting"), events.alias("entered")
    returned = (
        sa.select(entered.c.time)
        .where(entered.c.operation_id == o.c.id, entered.c.revision == o.c.revision)
        .correlate(o)
        .scalar_subquery()
    )
    begun = sa.case(
        (o.c.attempt > 0, returned),
        (o.c.schedule_time > o.c.create_time, o.c.schedule_time),
        else_=o.c.create_time,
    )
    found = (
        sa.select(begun.label("begun"), o.c.expire_time)
        .where(
            indexed_status(o, CLAIMABLE),
            o.c.next_attempt_time.is_(None),
            o.c.function == walk.c.function,
        )
        .order_by(o.c.owner, o.c.priority.desc(), o.c.create_time, o.c.id)
        .limit(max_operations)
        .correlate(walk)
        .subquery()
    )
    age = clock().op("-")(sa.func.min(found.c.begun))
    # The expiry is no condition of the inner query, where it would tempt the planner to its index.
    return (
        sa.select(sa.type_coerce(age, Span()))
        .where(found.c.expire_time >= clock())
        .scalar_subquery()
    )


class SqlWorkloadStore:
    """Implementation of the port `WorkloadStore`."""

    def __init__(self, batchers: Batchers) -> None:
        """Read through `batchers`."""
        self._batchers = batchers

    async def workload(self, max_functions: int, max_operations: int) -> Workload:
        """See `WorkloadStore.workload`."""

        def read(session: Session) -> Workload:
            functions = len(list(session.fetch(functions_query(max_functions))))
            share = max_operations // max(1, functions)
            rows = session.fetch(load_query(max_functions, max(1, share)))
            overdue = session.fetch(overdue_query())
            return Workload(
                functions=[_load(row) for row in rows],
                webhook_overdue=max(_NONE, overdue[0][0]) if overdue else _NONE,
            )

        return await self._batchers.read(read)


def _load(row: AnyRow) -> FunctionLoad:
    function, *counts, age = row
    return FunctionLoad(
        function=function,
        active=dict(zip(_STATUSES, counts, strict=True)),
        oldest_pending_age=max(_NONE, age or _NONE),
    )
