"""Files of a SQLite database that change while the service has them open, and their names."""

import asyncio
import os
from pathlib import Path

import pytest

from milepost.domain.errors import StoreUnavailable
from milepost.domain.operation import Status
from milepost.domain.transitions import Transition
from milepost.main.embedded import EmbeddedStore
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from tests import factories
from tests.contract.stored import answers

CAUSE = "the database file or its log was moved, replaced or removed"


@pytest.fixture
def database_url(sqlite_url):
    """The URL of a SQLite file."""
    return sqlite_url


@pytest.fixture
def path(engine) -> Path:
    """The path of the database."""
    return Path(engine.url.database)


async def problem_of(batchers) -> str:
    """Return why the database cannot be used; an empty text if it can."""
    try:
        return await batchers.problem() or ""
    except StoreUnavailable:
        return batchers.health.failure or ""


async def test_moved_database(batchers, store, path):
    """Nothing is acknowledged into a file without a name; once it is back, writes go on."""
    operation = await factories.create(store)
    path.rename(path.with_suffix(".moved"))
    (refused,) = await answers(factories.create(store))
    assert isinstance(refused, StoreUnavailable)
    assert CAUSE in await problem_of(batchers)
    path.with_suffix(".moved").rename(path)
    async with asyncio.timeout(5):
        while await problem_of(batchers):
            pass
    await factories.create(store)
    assert await store.get(operation.id, factories.access_filter()) == operation


async def test_replaced_database(batchers, store, path):
    """A copy in the place of the database is another file, to reads after a failure too."""
    await factories.create(store)
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)
    for _ in range(2):
        (refused,) = await answers(factories.create(store))
        assert isinstance(refused, StoreUnavailable)
        assert CAUSE in await problem_of(batchers)


async def test_removed_log(batchers, store, engine, path):
    """Without the name of its log the database takes no writes; a stop stores everything."""
    operation = await factories.create(store)
    assert not await problem_of(batchers)
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{path}{suffix}")  # noqa: PTH108 - as `rm` does, in no time
    (refused,) = await answers(factories.create(store))
    assert isinstance(refused, StoreUnavailable)
    assert CAUSE in await problem_of(batchers)
    await batchers.close()
    engine.dispose()
    again = Batchers(open_engine(f"sqlite:///{path}"))
    assert await Stores(again).operations.get(operation.id, factories.access_filter()) == operation
    await again.close()


async def test_log_that_sqlite_removes(engine):
    """A new log after the last connection was closed is no fault."""
    for _ in range(2):
        batchers = Batchers(engine)
        operation = await factories.create(Stores(batchers).operations)
        change = factories.change(Transition.CANCEL, operation.id)
        result = await Stores(batchers).operations.apply(change)
        assert result.operation.status is Status.CANCELLED
        assert await batchers.problem() is None
        await batchers.close()


def test_database_with_the_name_of_its_lock(path):
    """A service that starts empties no file, whatever the database is called."""
    renamed = path.rename(path.with_suffix(".lock"))
    before = renamed.read_bytes()
    with EmbeddedStore(f"sqlite:///{renamed}") as embedded:
        embedded.lock()
        assert renamed.read_bytes() == before


async def test_symbolic_link(path, tmp_path):
    """The files beside a database, such as the lock of its writers, have one place."""
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    batchers = Batchers(open_engine(f"sqlite:///{link}"))
    await factories.create(Stores(batchers).operations)
    assert os.listdir(link.parent) == ["link.db"]  # noqa: PTH208 - names
    await batchers.close()
