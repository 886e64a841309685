"""The migrations create the schema of `tables.py`, in both directions, also concurrently."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from milepost.domain.operation import Status
from milepost.storage import schema
from milepost.storage.event_partitions import is_comparable
from milepost.storage.schema import current, downgrade, is_usable, latest, upgrade
from milepost.storage.tables import metadata, operations
from tests import factories
from tests.migration.description import describe

TABLES = set(metadata.tables)
PROCESSES = 3
FIRST = "0001"
LATEST = latest() or ""
NEXT = "9999"


def tables(engine):
    """Return the names of the tables, except the one of alembic and the partitions."""
    names = set(sa.inspect(engine).get_table_names()) - {"alembic_version"}
    return {name for name in names if not name.startswith("events_")}


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[None]:
    """A context in which the release has one more migration, created as in CONTRIBUTING.md."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema._CHECKOUT, folder, ignore=shutil.ignore_patterns("__pycache__"))

    @contextmanager
    def installed() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(schema, "_CHECKOUT", folder)
            yield

    with installed():
        command.revision(schema._config(), "add operation colour", rev_id=NEXT)
    path = folder / "versions" / f"{NEXT}_add_operation_colour.py"
    text = path.read_text(encoding="utf-8")
    add = 'op.add_column("operations", sa.Column("colour", sa.Text))'
    drop = 'op.drop_column("operations", "colour")'
    path.write_text(text.replace("pass", add, 1).replace("pass", drop, 1), encoding="utf-8")
    return installed()


def stored_ids(engine):
    """Return the ids of the stored operations."""
    with engine.connect() as connection:
        return set(connection.scalars(sa.select(operations.c.id)))


def test_data_survives_the_next_migration(empty_url, empty, next_release):
    """Rows survive a migration and its downgrade."""
    upgrade(empty_url)
    rows = [factories.row(status) for status in Status]
    with empty.begin() as connection:
        connection.execute(sa.insert(operations), rows)
    first = describe(empty)
    with next_release:
        upgrade(empty_url)
        assert current(empty) == latest() == NEXT
        assert stored_ids(empty) == {row["id"] for row in rows}
        downgrade(empty_url, LATEST)
    assert describe(empty) == first
    assert stored_ids(empty) == {row["id"] for row in rows}


def test_schema_that_a_release_can_work_on(empty_url, empty, next_release):
    """A release works on its own schema and on later ones, not on earlier ones or without one."""
    assert not is_usable(current(empty))
    upgrade(empty_url)
    assert is_usable(current(empty))
    with next_release:
        assert not is_usable(current(empty))
        upgrade(empty_url)
        assert is_usable(current(empty))
    with empty.begin() as connection:
        connection.execute(sa.insert(operations), [factories.row(status) for status in Status])
    assert is_usable(current(empty))
    assert current(empty) != latest() == LATEST


def test_upgrade_from_nothing(empty_url, empty):
    """The upgrade of an empty database creates the latest revision."""
    assert current(empty) is None
    upgrade(empty_url)
    assert tables(empty) == TABLES
    assert current(empty) == latest()


def test_upgrade_again_changes_nothing(empty_url, empty):
    """A second upgrade changes neither schema nor rows."""
    upgrade(empty_url)
    before = describe(empty)
    with empty.begin() as connection:
        connection.execute(sa.insert(operations), [factories.row(status) for status in Status])
    upgrade(empty_url)
    assert describe(empty) == before
    with empty.connect() as connection:
        assert len(connection.execute(sa.select(operations.c.id)).all()) == len(Status)


def test_downgrade_leaves_nothing(empty_url, empty):
    """A downgrade to the base removes every object."""
    nothing = describe(empty)
    upgrade(empty_url)
    downgrade(empty_url, "base")
    assert tables(empty) == set()
    assert describe(empty) == nothing
    assert current(empty) is None


def test_up_down_up(empty_url, empty):
    """An upgrade after a downgrade creates the same schema."""
    upgrade(empty_url)
    once = describe(empty)
    downgrade(empty_url, "base")
    upgrade(empty_url)
    assert describe(empty) == once


def test_tables_have_not_drifted(empty_url, empty):
    """Alembic finds no difference between the migrations and the tables.

    It cannot compare indexes with a descending column on SQLite; the next test does.
    """
    upgrade(empty_url)

    def is_comparable_here(item, name, kind, reflected, other):
        if not is_comparable(item, name, kind, reflected, other):
            return False
        return empty.dialect.name != "sqlite" or (kind, name) != ("index", "operations_pending_idx")

    with empty.connect() as connection:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_object": is_comparable_here,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_migrations_make_what_the_tables_say(empty_url, empty):
    """The migrations and `tables.py` create the same schema, with all constraints and options."""
    upgrade(empty_url)
    migrated = describe(empty)
    downgrade(empty_url, "base")
    metadata.create_all(empty)
    assert migrated == describe(empty)


def test_migrations_at_once(empty_url, empty):
    """Concurrent upgrades all succeed, and create one schema."""
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
