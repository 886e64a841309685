"""The migration that partitions the events: rows, callers and privileges go on as before."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from milepost.storage.engine import open_engine
from milepost.storage.schema import downgrade, upgrade
from milepost.storage.tables import events
from tests import factories
from tests.event_days import keep_event_days

BEFORE = "0001"
AFTER = "0002"
OPERATION = "op_0123456789abcdef01234567"


def event(revision, time, **overrides):
    """Return the row of an event, as both releases insert it."""
    return {
        "operation_id": OPERATION,
        "revision": revision,
        "type": "operation.started",
        "transition": "start",
        "owner": factories.OWNER,
        "actor": factories.OWNER,
        "time": time,
        "attempt": 1,
        **overrides,
    }


def stored(engine):
    """Return all events, by revision."""
    with engine.connect() as connection:
        query = sa.select(events).order_by(events.c.revision)
        return [dict(row) for row in connection.execute(query).mappings()]


def insert(engine, *rows):
    """Insert events as a service does, by the name of the table."""
    with engine.begin() as connection:
        connection.execute(sa.insert(events), rows)


def test_events_survive_there_and_back(empty_url, empty):
    """Events of every age are the same after the migration, and after its downgrade."""
    upgrade(empty_url, BEFORE)
    now = datetime.now(UTC)
    insert(empty, event(1, factories.LONG_AGO), event(2, now), event(3, now + timedelta(hours=30)))
    before = stored(empty)
    upgrade(empty_url, AFTER)
    assert stored(empty) == before
    keep_event_days(empty_url)
    insert(empty, event(4, now), event(5, now + timedelta(days=2)), event(6, factories.FAR_AWAY))
    after = stored(empty)
    assert [row["revision"] for row in after] == [1, 2, 3, 4, 5, 6]
    downgrade(empty_url, BEFORE)
    assert stored(empty) == after
    with pytest.raises(sa.exc.IntegrityError):
        insert(empty, event(1, now))
    upgrade(empty_url, AFTER)
    assert stored(empty) == after


def test_revision_is_unique_beside_older_events(empty_url, empty):
    """Within one partition a revision of an operation is stored once, also after the migration."""
    upgrade(empty_url, BEFORE)
    now = datetime.now(UTC)
    insert(empty, event(1, now))
    upgrade(empty_url, AFTER)
    with pytest.raises(sa.exc.IntegrityError):
        insert(empty, event(1, now))


def test_prepared_statements_of_the_previous_release_go_on(empty_postgres_url):
    """A connection of the previous release reads, writes and purges with what it has prepared."""
    upgrade(empty_postgres_url, BEFORE)
    engine = open_engine(empty_postgres_url)
    read = "SELECT revision FROM events WHERE operation_id = %s ORDER BY revision"
    write = (
        "INSERT INTO events (operation_id, revision, type, transition, owner, actor, time)"
        " VALUES (%s, %s, 'operation.expired', 'purge', 'alice', 'milepost', now())"
    )
    purge = (
        "WITH purged AS (SELECT operation_id FROM events WHERE transition = 'purge'"
        " AND revision > 1 AND time < now() ORDER BY time LIMIT 9 FOR UPDATE SKIP LOCKED)"
        " DELETE FROM events WHERE operation_id IN (SELECT operation_id FROM purged)"
    )
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.autocommit = True
        driver.execute(write, (OPERATION, 1), prepare=True)
        assert driver.execute(read, (OPERATION,), prepare=True).fetchall() == [(1,)]
        upgrade(empty_postgres_url, AFTER)
        driver.execute(write, (OPERATION, 2), prepare=True)
        assert driver.execute(read, (OPERATION,), prepare=True).fetchall() == [(1,), (2,)]
        keep_event_days(empty_postgres_url)
        driver.execute(purge, prepare=True)
        assert driver.execute(read, (OPERATION,), prepare=True).fetchall() == []


def test_privileges_stay(empty_postgres_url):
    """A role that could read and write events can after the migration, and after its downgrade."""
    upgrade(empty_postgres_url, BEFORE)
    engine = open_engine(empty_postgres_url)
    role = f"milepost_service_{uuid.uuid4().hex}"

    def privileges(table):
        with engine.connect() as connection:
            return [
                connection.scalar(
                    sa.text("SELECT has_table_privilege(:role, :table, :privilege)"),
                    {"role": role, "table": table, "privilege": privilege},
                )
                for privilege in ("SELECT", "INSERT", "DELETE", "TRUNCATE")
            ]

    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE ROLE {role}"))
        connection.execute(sa.text(f"GRANT SELECT, INSERT, DELETE ON events TO {role}"))
    try:
        upgrade(empty_postgres_url, AFTER)
        assert privileges("events") == privileges("events_default") == [True, True, True, False]
        downgrade(empty_postgres_url, BEFORE)
        assert privileges("events") == [True, True, True, False]
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP OWNED BY {role}"))
            connection.execute(sa.text(f"DROP ROLE {role}"))
