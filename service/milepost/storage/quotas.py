"""The quota of active operations: exact over all replicas, for one updated row per create.

`quotas.reserved` is an upper bound of the active operations of an owner. A create raises it in the
statement that inserts; only a recount lowers it, so that the end of an operation costs no write and
no lock. When the bound reaches the quota, the store counts the owner's active operations under the
lock of the owner's row, sets the bound to the count, and creates the operation or refuses it before
it releases the lock. The same recount corrects the reservation of a create that met a conflict.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.transitions import ACTIVE
from milepost.storage.predicates import indexed_status, unexpired
from milepost.storage.prepared import Prepared
from milepost.storage.tables import operations, quotas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement

    from milepost.storage.database import Cursor, Database, Runnable
    from milepost.storage.session import Session

    Columns = Mapping[str, ColumnElement[Any]]

MAX_EXCESS: Final = 1_000
"""Operations beyond the quota that a recount counts: an owner has more if its quota was lowered."""

_o, _q = operations.c, quotas.c
_ZERO: Final = sa.literal_column("0", sa.Integer)
_ONE: Final = sa.literal_column("1", sa.Integer)


def reserve(database: Database, m: Columns) -> tuple[Columns, ColumnElement[bool]]:
    """Return the columns of the new requests in `m`, and the condition that the quota allows them.

    Part of the one statement of the create. The upsert waits for the lock of the owner's row and
    then decides on its newest version. A request whose request_id is known reserves nothing: a
    retry succeeds at the limit too. The first row of an owner is full, so that the first create is
    preceded by a count.
    """
    # A scalar subquery, looked up for each request: for EXISTS the planner might hash the table.
    known = (
        sa.select(_o.id)
        .where(_o.owner == m["owner"], _o.request_id == m["request_id"])
        .correlate_except(operations)
        .scalar_subquery()
    )
    number = sa.func.row_number().over(partition_by=m["owner"], order_by=(m["request_id"], m["id"]))
    fresh = (
        sa.select(*(value.label(name) for name, value in m.items()), number.label("number"))
        .where(known.is_(None))
        .cte("fresh")
    )
    requested = (
        sa.select(
            fresh.c.owner,
            sa.func.max(fresh.c.quota),
            sa.cast(sa.func.count(), sa.Integer),
            _ZERO,
        )
        .group_by(fresh.c.owner)
        .order_by(fresh.c.owner)  # all replicas lock rows in this order
    )
    upsert = database.insert(quotas).from_select(
        [_q.owner, _q.reserved, _q.asked, _q.granted], requested
    )
    # The inserted row would be full: `excluded.reserved` is the quota.
    remaining = upsert.excluded.reserved - _q.reserved
    granted = sa.func.greatest(_ZERO, sa.func.least(upsert.excluded.asked, remaining))
    reservation = (
        upsert.on_conflict_do_update(
            index_elements=[_q.owner],
            set_={
                "reserved": _q.reserved + granted,
                "asked": upsert.excluded.asked,
                "granted": granted,
            },
        )
        .returning(_q.owner, _q.granted)
        .cte("reservation")
    )
    return dict(fresh.c), sa.and_(
        reservation.c.owner == fresh.c.owner, fresh.c.number <= reservation.c.granted
    )


def has_quota(m: Columns) -> ColumnElement[bool]:
    """Return the condition that the quota allows one more operation, for a single writer."""
    return sa.exists().where(_q.owner == m["owner"], _q.reserved < m["quota"])


class QuotaReservation:
    """Creates and their reservations, one after the other: for SQLite."""

    def __init__(self, database: Database, creates: Runnable, *, owner: int) -> None:
        """Compile the statement; `owner` is the position of the owner among the inputs."""
        self._creates = creates
        self._owner = owner
        self._reserve = Prepared(
            database,
            {"owner": sa.Text()},
            lambda m: (
                sa.update(quotas).where(_q.owner == m["owner"]).values(reserved=_q.reserved + _ONE)
            ),
        )

    def run(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Create the operations that the quota allows; each sees the earlier reservations."""
        results: list[tuple[Any, ...]] = []
        for row in rows:
            created = self._creates.run(cursor, [row])
            if created:
                self._reserve.run(cursor, [(row[self._owner],)])
                results += created
        return results


@functools.cache
def quota_recount(database: Database) -> QuotaRecount:
    """Return the statements of a recount."""
    return QuotaRecount(database)


class QuotaRecount:
    """The recount that sets the bound of an owner to its active operations."""

    def __init__(self, database: Database) -> None:
        """Compile the statements."""
        self._lock = Prepared(database, {"owner": sa.Text()}, lambda m: _lock(database, m))
        self._set = Prepared(
            database,
            {"owner": sa.Text(), "active": sa.Integer()},
            lambda m: sa.update(quotas).where(_q.owner == m["owner"]).values(reserved=m["active"]),
        )

    def lock(self, session: Session, owner: str) -> None:
        """Block other creates for the owner until the current transaction ends."""
        session.run(self._lock, [(owner,)])

    def run(self, session: Session, owner: str, quota: int) -> int:
        """Return the number of active operations of the owner. The caller holds the lock.

        A statement of its own counts them, so that it begins after the lock was taken and sees all
        creates that were committed before.
        """
        ((active,),) = session.fetch(count_active(owner, quota + MAX_EXCESS))
        session.run(self._set, [(owner, active)])
        return int(active)


def _lock(database: Database, m: Columns) -> Any:
    """Return the upsert that locks the row of an owner, and creates the row if it is missing."""
    row = sa.select(m["owner"], _ZERO, _ZERO, _ZERO).where(m["owner"].is_not(None))
    return (
        database.insert(quotas)
        .from_select([_q.owner, _q.reserved, _q.asked, _q.granted], row)
        .on_conflict_do_update(index_elements=[_q.owner], set_={"granted": _ZERO})
    )


def count_active(owner: str, max_operations: int) -> sa.Select[Any]:
    """Return the query for the number of active operations of an owner, up to `max_operations`."""
    active = (
        sa.select(_ONE.label("one"))
        .where(_o.owner == owner, indexed_status(operations, ACTIVE), unexpired())
        .limit(max_operations)
    )
    return sa.select(sa.func.count()).select_from(active.subquery())
