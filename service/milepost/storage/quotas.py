"""The quota of active operations: exact over all replicas, at the price of one row per create.

`quotas.reserved` is an upper bound of the active operations of an owner. A create raises it in the
statement that inserts; nothing ever lowers it but a recount, so that the end of an operation costs
nothing and locks nothing. When the bound has reached the quota, the owner's active operations are
counted under the lock of its row, the bound is set to what was found, and the create goes on, or is
refused, before the lock is let go. A reservation of a create that then met a conflict is repaired
by the same recount.
"""

from __future__ import annotations

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

MOST_OVER: Final = 1_000
"""How far beyond its quota an owner is counted: it has more after the quota was lowered."""

_o, _q = operations.c, quotas.c
_ZERO: Final = sa.literal_column("0", sa.Integer)
_ONE: Final = sa.literal_column("1", sa.Integer)


def reserve(database: Database, m: Columns) -> tuple[Columns, ColumnElement[bool]]:
    """Return the drafts of `m` that are new, and the condition that their owner has room for one.

    Within the one statement of the create. The upsert waits for the lock of the
    owner's row and then decides on its newest version. A draft whose request_id is known takes
    nothing: the same call again is answered at the limit too. The first row of an owner is full,
    so that nobody begins with a count that was never made.
    """
    # A scalar, looked up for each draft: of an EXISTS the planner might make a hash of them all.
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
    asked = (
        sa.select(
            fresh.c.owner,
            sa.func.max(fresh.c.quota),
            sa.cast(sa.func.count(), sa.Integer),
            _ZERO,
        )
        .group_by(fresh.c.owner)
        .order_by(fresh.c.owner)  # rows are locked in one order by everybody
    )
    upsert = database.insert(quotas).from_select(
        [_q.owner, _q.reserved, _q.asked, _q.granted], asked
    )
    # A new row would be full: what it has reserved is the quota.
    left = upsert.excluded.reserved - _q.reserved
    granted = sa.func.greatest(_ZERO, sa.func.least(upsert.excluded.asked, left))
    room = (
        upsert.on_conflict_do_update(
            index_elements=[_q.owner],
            set_={
                "reserved": _q.reserved + granted,
                "asked": upsert.excluded.asked,
                "granted": granted,
            },
        )
        .returning(_q.owner, _q.granted)
        .cte("room")
    )
    return dict(fresh.c), sa.and_(room.c.owner == fresh.c.owner, fresh.c.number <= room.c.granted)


def has_room(m: Columns) -> ColumnElement[bool]:
    """Return the condition that the owner has room for one more, where there is one writer."""
    return sa.exists().where(_q.owner == m["owner"], _q.reserved < m["quota"])


class QuotaReservation:
    """Creates, and what they take of their owners' quotas, one after the other: for SQLite."""

    def __init__(self, database: Database, creates: Runnable, *, owner: int) -> None:
        """Compile the statement; `owner` is the place of the owner among the inputs."""
        self._creates = creates
        self._owner = owner
        self._take = Prepared(
            database,
            {"owner": sa.Text()},
            lambda m: (
                sa.update(quotas).where(_q.owner == m["owner"]).values(reserved=_q.reserved + _ONE)
            ),
        )

    def run(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Create what may be created; each sees what those before it have taken."""
        found: list[tuple[Any, ...]] = []
        for row in rows:
            created = self._creates.run(cursor, [row])
            if created:
                self._take.run(cursor, [(row[self._owner],)])
                found += created
        return found


class QuotaRecount:
    """Sets the bound of an owner to what is true."""

    def __init__(self, database: Database) -> None:
        """Compile the statements."""
        self._lock = Prepared(database, {"owner": sa.Text()}, lambda m: _lock(database, m))
        self._set = Prepared(
            database,
            {"owner": sa.Text(), "active": sa.Integer()},
            lambda m: sa.update(quotas).where(_q.owner == m["owner"]).values(reserved=m["active"]),
        )

    def lock(self, session: Session, owner: str) -> None:
        """Let nobody else create for the owner before the transaction around this has ended."""
        session.run(self._lock, [(owner,)])

    def run(self, session: Session, owner: str, quota: int) -> int:
        """Return how many active operations the owner has; call it under the lock.

        What is counted is counted by a statement of its own, begun after the lock was given: it
        sees whatever those before have committed.
        """
        ((active,),) = session.fetch(count_active(owner, quota + MOST_OVER))
        session.run(self._set, [(owner, active)])
        return int(active)


def _lock(database: Database, m: Columns) -> Any:
    """Return the upsert that locks the row of an owner, and makes it where there is none."""
    row = sa.select(m["owner"], _ZERO, _ZERO, _ZERO).where(m["owner"].is_not(None))
    return (
        database.insert(quotas)
        .from_select([_q.owner, _q.reserved, _q.asked, _q.granted], row)
        .on_conflict_do_update(index_elements=[_q.owner], set_={"granted": _ZERO})
    )


def count_active(owner: str, max_operations: int) -> sa.Select[Any]:
    """Return the read of how many active operations the owner has, up to `max_operations`."""
    active = (
        sa.select(_ONE.label("one"))
        .where(_o.owner == owner, indexed_status(operations, ACTIVE), unexpired())
        .limit(max_operations)
    )
    return sa.select(sa.func.count()).select_from(active.subquery())
