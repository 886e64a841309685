"""Partition the events by day on PostgreSQL, so that old ones are dropped instead of deleted.

Events are most of what retention removes: at a million operations a day 7 GB a week, each row of
which a DELETE would read, write and leave to vacuum. SQLite keeps its one table.

The previous release keeps working, because the name, the columns and the order of the columns stay:
its inserts are routed by the time of the event, and its prepared statements are planned again. The
existing rows are not copied: their table becomes the partition of all days until today. PostgreSQL
reads it once to check that, and calls wait meanwhile. The service makes the partitions of the next
days; until then events go to the default one.

Revision: 0002
Follows: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LIKE = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS"
_KEY = "PRIMARY KEY (operation_id, revision)"
_PURGE_EVENT = "transition = 'purge' AND revision > 1"


def upgrade() -> None:
    """Put a partitioned table in the place of the events; the old one becomes a partition."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("ALTER TABLE events RENAME TO events_first")
    op.execute(f"CREATE TABLE events (LIKE events_first {_LIKE}) PARTITION BY RANGE (time)")
    op.execute(
        "CREATE TABLE events_default PARTITION OF events"
        f" (CONSTRAINT events_default_pkey {_KEY}) DEFAULT"
    )
    op.execute("CREATE INDEX events_default_time_idx ON events_default (time)")
    op.execute(
        f"CREATE INDEX events_default_purge_time_idx ON events_default (time) WHERE {_PURGE_EVENT}"
    )
    _grant_as("events_first", "events", "events_default")
    # The bound is after the last event, whatever the clock was when it was written.
    op.execute(
        """
        DO $$
        DECLARE last timestamptz := (SELECT max(time) FROM events_first);
        BEGIN
            IF last IS NULL THEN
                DROP TABLE events_first;
            ELSE
                EXECUTE format(
                    'ALTER TABLE events ATTACH PARTITION events_first'
                    ' FOR VALUES FROM (MINVALUE) TO (%L)',
                    date_trunc('day', greatest(last, now()), 'UTC') + interval '24 hours'
                );
            END IF;
        END $$
        """
    )


def downgrade() -> None:
    """Copy the events of all partitions into one table."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("ALTER TABLE events RENAME TO events_by_day")
    op.execute(f"CREATE TABLE events (LIKE events_by_day {_LIKE})")
    op.execute("INSERT INTO events SELECT * FROM events_by_day")
    _grant_as("events_by_day", "events")
    op.execute("DROP TABLE events_by_day")
    op.execute(f"ALTER TABLE events ADD CONSTRAINT events_pkey {_KEY}")
    op.execute("CREATE INDEX events_time_idx ON events (time)")
    op.execute(f"CREATE INDEX events_purge_time_idx ON events (time) WHERE {_PURGE_EVENT}")


def _grant_as(old: str, *tables: str) -> None:
    """Give every role the privileges on `tables` that it has on `old`."""
    op.execute(
        f"""
        DO $$
        DECLARE given record;
        BEGIN
            FOR given IN
                SELECT privilege_type AS privilege,
                    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS role
                FROM pg_class, aclexplode(relacl)
                WHERE pg_class.oid = '{old}'::regclass AND grantee <> relowner
            LOOP
                EXECUTE format(
                    'GRANT %s ON {", ".join(tables)} TO %s', given.privilege, given.role
                );
            END LOOP;
        END $$
        """  # noqa: S608 - constants of this file
    )
