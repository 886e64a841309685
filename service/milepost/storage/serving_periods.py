"""Serving periods: the times in which a replica could take renewals of leases.

Every replica extends the current period each second. A gap, such as a restart, a freeze or an
outage of the database, ends it, and the next replica that can write begins another. A worker that
could not renew its lease during a gap has one full lease to do so, counted in serving time only:
short periods add up, so that a lost lease is found even if the service restarts all the time.

A replica serves only if it could write to operations: a lock of the whole table, as of CREATE
INDEX, ALTER TABLE or VACUUM FULL, lets no worker renew its lease.

Only the clock of the database counts, and each decision is part of the statement that sweeps. A
replica that was frozen therefore sweeps nothing before it has noticed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.storage.dialects import Instant, Span, clock, later, long_ago
from milepost.storage.tables import operations, serving_periods

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Engine

    from milepost.storage.session import Session

MAX_GAP: Final = timedelta(seconds=2.5)
"""Time without an extension that ends a period. Shorter gaps leave a worker the time to renew even
the shortest lease."""
RETENTION: Final = timedelta(days=1)
"""Time for which periods are kept; longer than any lease."""

_o, _p = operations.c, serving_periods.c
_ALIVE: Final = later(clock(), sa.literal(-MAX_GAP, Span()))
"""A period whose end is older is over."""


_RENEWAL: Final = (
    sa.update(operations).where(sa.false()).values(revision=_o.revision).returning(_o.id)
)
"""A renewal of no operation. It waits for the locks that a renewal waits for."""


def could_be_renewed() -> ColumnElement[bool]:
    """Return the condition that the holder of a lease had one full lease to renew it.

    It is false while no period is current. Without an interruption since the last renewal, the
    lease itself was that time.
    """
    renewal = sa.type_coerce(_o.lease_expire_time.op("-")(_o.lease), Instant())
    served = (
        sa.select(sa.func.sum(_length()))
        .where(_p.start_time > renewal)
        .correlate(operations)
        .scalar_subquery()
    )
    end = sa.select(_p.end_time).order_by(_p.start_time.desc()).limit(1).scalar_subquery()
    current = sa.func.coalesce(end, long_ago()) >= _ALIVE
    return sa.and_(current, sa.func.coalesce(served, _o.lease) >= _o.lease)


def note_serving(session: Session) -> timedelta | None:
    """Extend the current period, or begin one; return the length of the gap before a new one."""
    session.fetch(_RENEWAL)
    latest = sa.select(sa.func.max(_p.start_time)).scalar_subquery()
    extended = session.fetch(
        sa.update(serving_periods)
        .where(_p.start_time == latest, _p.end_time >= _ALIVE)
        .values(end_time=clock())
        .returning(_p.start_time)
    )
    if extended:
        return None
    ((gap,),) = session.fetch(sa.select(_span(clock(), sa.func.max(_p.end_time))))
    old = later(clock(), sa.literal(-RETENTION, Span()))
    session.fetch(sa.delete(serving_periods).where(_p.end_time < old).returning(_p.start_time))
    session.fetch(
        session.database.insert(serving_periods)
        .values(start_time=clock(), end_time=clock())
        .on_conflict_do_nothing()
        .returning(_p.start_time)
    )
    length: timedelta | None = gap
    return length


def is_served(engine: Engine) -> bool:
    """Return whether a replica has extended the current period within `MAX_GAP`."""
    if not sa.inspect(engine).has_table(serving_periods.name):
        return False
    with engine.connect() as connection:
        return bool(connection.scalar(sa.select(sa.func.max(_p.end_time) >= _ALIVE)))


def _length() -> ColumnElement[timedelta]:
    return _span(_p.end_time, _p.start_time)


def _span(end: ColumnElement[Any], start: ColumnElement[Any]) -> ColumnElement[timedelta]:
    return sa.type_coerce(end.op("-")(start), Span())
