"""Real file systems that are full or read-only: the cause has a name, and the return is noticed.

They need the right to mount, which root has on most machines.
"""

import os
import subprocess

import pytest
import sqlalchemy as sa

from milepost.domain.errors import StoreUnavailable
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.failures import failure
from milepost.storage.requirements import unmet_requirement
from milepost.storage.schema import upgrade
from milepost.storage.stores import Stores
from tests import factories
from tests.postgres import PostgresCluster
from tests.postgres_binaries import temporary_root

SIZE = "64m"
METADATA = "x" * 9_000
MAX_WRITES = 500


def mount(*arguments):
    """Return whether a command that mounts succeeds."""
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True)
    return done.returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A small file system, which every account may enter; skip the test where none can be made."""
    folder = temporary_root() / f"mp-disk-{os.getpid()}-{tmp_path.name[-8:]}"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", f"size={SIZE},mode=777", "none", str(folder)):
        folder.rmdir()
        pytest.skip("this account may not mount: a full and a read-only disk are UNTESTED")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
    folder.rmdir()


@pytest.fixture
def small_url(disk):
    """The URL of a PostgreSQL database whose tables are on the small file system."""
    with PostgresCluster(durable=False) as cluster:
        tables = disk / "tables"
        tables.mkdir()
        owner = (cluster.folder / "d").stat()
        os.chown(tables, owner.st_uid, owner.st_gid)
        engine = open_engine(cluster.url("postgres"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text(f"CREATE TABLESPACE small LOCATION '{tables}'"))
            connection.execute(sa.text("CREATE DATABASE small TABLESPACE small"))
        upgrade(cluster.url("small"))
        yield cluster.url("small")


def fill(path):
    """Write to a file until there is no room."""
    with path.open("wb") as file:
        while True:
            file.write(bytes(65_536))
            file.flush()


async def write(store):
    """Create operations until one is refused."""
    for n in range(MAX_WRITES):
        await factories.create(store, owner=f"owner-{n}", metadata=METADATA)


async def test_full_disk_of_postgresql(small_url, disk):
    """Writes without room are UNAVAILABLE and the cause is named, until there is room again."""
    batchers = Batchers(open_engine(small_url))
    store = Stores(batchers).operations
    try:
        first = await factories.create(store)
        assert await batchers.problem() is None
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        with pytest.raises(StoreUnavailable):
            await write(store)
        assert await batchers.problem() == "the database refuses writes: its disk is full"
        assert await store.get(first.id, factories.access_filter()) == first
        filler.unlink()
        while await batchers.problem() is not None:
            pass
        await factories.create(store, metadata=METADATA)
    finally:
        await batchers.close()


def test_read_only_disk_of_sqlite(disk):
    """A file on a disk that became read-only cannot be used, by its name, until it is writable."""
    url = f"sqlite:///{disk}/milepost.db"
    upgrade(url)
    assert unmet_requirement(open_engine(url)) is None
    assert mount("-o", "remount,ro", str(disk))
    with pytest.raises(sa.exc.OperationalError) as caught:
        unmet_requirement(open_engine(url))
    assert failure(caught.value) == (
        "the database file cannot be opened or created: it must be a file in a writable folder"
    )
    assert mount("-o", "remount,rw", str(disk))
    assert unmet_requirement(open_engine(url)) is None
