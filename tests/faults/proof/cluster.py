"""A PostgreSQL cluster for one run, on a small disk where its plan fills one."""

import contextlib
import uuid
from collections.abc import Iterator, Mapping

from tests.faults.proof.disk import small_disk
from tests.faults.proof.fleet import Database
from tests.faults.proof.nemesis import Fault
from tests.faults.proof.run import Size
from tests.postgres import PostgresCluster

MIN_DISK_MIB = 200
BYTES_PER_LIFE = 12_000
_SETTINGS = {"max_wal_size": "64MB", "min_wal_size": "32MB"}


@contextlib.contextmanager
def fresh_database(size: Size, settings: Mapping[str, str] | None = None) -> Iterator[Database]:
    """Run a durable cluster, and name a database in it that is to be created."""
    with contextlib.ExitStack() as stack:
        disk = None
        if size.faults.get(Fault.FILL_DISK):
            mib = MIN_DISK_MIB + size.lives * BYTES_PER_LIFE // 2**20
            disk = stack.enter_context(small_disk(mib))
        cluster = stack.enter_context(
            PostgresCluster(
                in_memory=disk is None,
                disk=disk.folder if disk else None,
                settings=_SETTINGS | dict(settings or {}),
            )
        )
        yield Database(cluster, f"proof_{uuid.uuid4().hex}", disk)
