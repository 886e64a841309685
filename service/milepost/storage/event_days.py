"""The events on PostgreSQL: one partition for each day (UTC), made ahead and dropped as a whole.

Every replica does this. Each step is a short transaction under an advisory lock, and gives up when
it would wait for a lock, so that calls never wait long for it. An event whose day has no partition
goes to the default one: nothing is lost if no replica ran for a week, or if the role of the service
may not change tables. Events of the default partition are purged row by row (``sweeps.py``).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from milepost.domain.event_days import EventDays
from milepost.domain.operation import Status
from milepost.storage.dialects import clock
from milepost.storage.event_partitions import events_default
from milepost.storage.predicates import has_unknown_status, ordered_status
from milepost.storage.tables import events, operations

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from milepost.storage.session import Session

DAYS_AHEAD: Final = 3
"""Days after today that have a partition already."""
MAX_MOVED: Final = 1_000
"""Operations whose events are moved to the default partition when their day is dropped. A day with
more of them stays until they have ended, because moving them would delay calls."""
MAX_ORPHANS: Final = 10_000
"""Rows of the default partition that are removed with one day."""
LOCK_TIMEOUT: Final = "200ms"
"""Time that calls may wait behind a step that waits for a lock, for example beside a backup."""
_DAY: Final = timedelta(days=1)
_ADVISORY_LOCK: Final = 0x6D_69_6C_65_64_61_79_73
_o = operations.c

_STATE: Final = sa.text(
    """
    SELECT n.nspname AS schema, statement_timestamp() AS now,
        date_trunc('day', statement_timestamp(), 'UTC') AS today,
        pg_has_role(c.relowner, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE') AS is_permitted
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = 'events'::regclass
    """
)
_PARTITIONS: Final = sa.text(
    r"""
    SELECT c.relname AS name,
        (regexp_match(bound, 'FROM \(''([^'']+)''\)'))[1]::timestamptz AS begin,
        (regexp_match(bound, 'TO \(''([^'']+)''\)'))[1]::timestamptz AS end
    FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid,
        LATERAL pg_get_expr(c.relpartbound, c.oid) AS bound
    WHERE inhparent = 'events'::regclass AND bound <> 'DEFAULT'
    ORDER BY 3
    """
)


class Partition(NamedTuple):
    """A partition of the events, from its begin to before its end."""

    name: str
    begin: datetime | None
    """None for the partition of all earlier events."""
    end: datetime


def step(session: Session, kept: timedelta) -> EventDays | None:
    """Make or drop one partition; return None if there is nothing to do, or another replica does.

    Raises:
        LockNotAvailable: of the driver, if another transaction is in the way.
    """
    (state,) = session.fetch(_STATE)
    if not state.is_permitted:
        return EventDays(is_permitted=False)
    with session.transaction():
        if not session.fetch(sa.select(sa.func.pg_try_advisory_xact_lock(_ADVISORY_LOCK)))[0][0]:
            return None
        session.fetch(sa.select(sa.func.set_config("lock_timeout", LOCK_TIMEOUT, True)))  # noqa: FBT003 - of the transaction
        partitions = [Partition(*row) for row in session.fetch(_PARTITIONS)]
        for day in (state.today + n * _DAY for n in range(DAYS_AHEAD + 1)):
            if not _has_partition(partitions, day) and not _is_in_default(session, day):
                return EventDays(made=(make(session, state.schema, day),))
        for partition in partitions:
            if partition.end + kept > state.now or _has_many_operations(session, partition.end):
                break
            _drop(session, state.schema, partition, kept)
            return EventDays(dropped=(partition.name,))
    return None


def _has_partition(partitions: Sequence[Partition], day: datetime) -> bool:
    return any((each.begin is None or each.begin <= day) and day < each.end for each in partitions)


def _is_in_default(session: Session, day: datetime) -> bool:
    """Return whether the default partition has events of a day, which then stay there."""
    time = events_default.c.time
    found = sa.exists().where(time >= day, time < day + _DAY)
    return bool(session.fetch(sa.select(found))[0][0])


def make(session: Session, schema: str, day: datetime) -> str:
    """Create the partition of a day.

    To attach a table locks the parent less than to create a partition of it.
    """
    name = f"events_{day:%Y%m%d}"
    quoted = session.database.dialect.identifier_preparer.quote
    table = f"{quoted(schema)}.{name}"
    _change(
        session,
        f"CREATE TABLE {table} (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS"
        f" INCLUDING COMMENTS, CONSTRAINT {name}_pkey PRIMARY KEY (operation_id, revision))",
        f"ALTER TABLE events ATTACH PARTITION {table}"
        f" FOR VALUES FROM ('{day.isoformat()}') TO ('{(day + _DAY).isoformat()}')",
    )
    return name


def _has_many_operations(session: Session, end: datetime) -> bool:
    """Return whether too many operations that were created before `end` still exist."""
    found = sa.select(sa.func.count()).select_from(_created_before(end).subquery())
    return int(session.fetch(found)[0][0]) > MAX_MOVED


def _created_before(end: datetime) -> sa.CompoundSelect[Any]:
    """Return the query for the operations that were created before `end`, or many of them."""
    statuses = [*(ordered_status(_o.status, each) for each in Status), has_unknown_status()]
    return sa.union_all(
        *(
            sa.select(
                sa.select(_o.id).where(status, _o.create_time < end).limit(MAX_MOVED + 1).subquery()
            )
            for status in statuses
        )
    )


def _drop(session: Session, schema: str, partition: Partition, kept: timedelta) -> None:
    """Drop the partition of a day; the events of operations that still exist are moved."""
    session.connection.execute(_orphans(kept))
    quoted = session.database.dialect.identifier_preparer.quote
    table = f"{quoted(schema)}.{quoted(partition.name)}"
    _change(session, f"ALTER TABLE events DETACH PARTITION {table}")
    names = [column.name for column in events.columns]
    day = sa.table(partition.name, *(sa.column(name) for name in names), schema=schema)
    left = sa.select(*day.c).where(day.c.operation_id.in_(_created_before(partition.end)))
    session.connection.execute(sa.insert(events).from_select(names, left))
    _change(session, f"DROP TABLE {table}")


def _orphans(kept: timedelta) -> sa.Delete:
    """Return the removal of moved events whose operation is gone by now, with its last event."""
    e = events_default.c
    gone = (
        sa.select(e.operation_id)
        .where(
            e.time < sa.type_coerce(clock().op("-")(sa.literal(kept)), e.time.type),
            ~sa.exists().where(_o.id == e.operation_id),
        )
        .order_by(e.time)
        .limit(MAX_ORPHANS)
    )
    return sa.delete(events_default).where(e.operation_id.in_(gone))


def _change(session: Session, *statements: str) -> None:
    for statement in statements:
        session.connection.exec_driver_sql(statement)
