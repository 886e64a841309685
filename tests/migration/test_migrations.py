"""The migrations make the schema of the tables, in both directions, whoever runs them at once."""

import os
import subprocess
import sys

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from milepost.domain.operation import Status
from milepost.storage.schema import current, downgrade, latest, upgrade
from milepost.storage.tables import metadata, operations
from tests import factories
from tests.migration.description import describe

TABLES = set(metadata.tables)
PROCESSES = 3


def tables(engine):
    """The names of the tables, but for the one of alembic."""
    return set(sa.inspect(engine).get_table_names()) - {"alembic_version"}


def test_upgrade_from_nothing(empty_url, empty):
    """An empty database becomes one of the newest revision."""
    assert current(empty) is None
    upgrade(empty_url)
    assert tables(empty) == TABLES
    assert current(empty) == latest()


def test_upgrade_again_changes_nothing(empty_url, empty):
    """A database of the newest revision stays as it is, with what it holds."""
    upgrade(empty_url)
    before = describe(empty)
    with empty.begin() as connection:
        connection.execute(sa.insert(operations), [factories.row(status) for status in Status])
    upgrade(empty_url)
    assert describe(empty) == before
    with empty.connect() as connection:
        assert len(connection.execute(sa.select(operations.c.id)).all()) == len(Status)


def test_downgrade_leaves_nothing(empty_url, empty):
    """Backwards to the base nothing is left: no table, no index, no function."""
    nothing = describe(empty)
    upgrade(empty_url)
    downgrade(empty_url, "base")
    assert tables(empty) == set()
    assert describe(empty) == nothing
    assert current(empty) is None


def test_up_down_up(empty_url, empty):
    """Forwards, backwards and forwards again is the same as forwards."""
    upgrade(empty_url)
    once = describe(empty)
    downgrade(empty_url, "base")
    upgrade(empty_url)
    assert describe(empty) == once


def test_tables_have_not_drifted(empty_url, empty):
    """Alembic finds nothing that a further migration would have to do."""
    upgrade(empty_url)
    with empty.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_migrations_make_what_the_tables_say(empty_url, empty):
    """To the last CHECK, index, comment and storage option both ways make the same schema."""
    upgrade(empty_url)
    migrated = describe(empty)
    downgrade(empty_url, "base")
    metadata.create_all(empty)
    assert migrated == describe(empty)


def test_migrations_at_once(empty_url, empty):
    """Replicas that migrate at the same time all succeed, and the schema is made once."""
    script = "import sys; from milepost.storage.schema import upgrade; upgrade(sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, empty_url], env=environment, stderr=subprocess.PIPE
        )
        for _ in range(PROCESSES)
    ]
    errors = [process.communicate(timeout=50)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, errors
    assert tables(empty) == TABLES
    assert current(empty) == latest()
