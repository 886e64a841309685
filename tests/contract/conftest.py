"""Fixtures: the stores under test on each database, and the stored rows."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.engine import Engine

from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.operations import SqlOperationStore
from milepost.storage.stores import Stores
from tests import factories
from tests.contract.stored import Stored


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The engine of a fresh database, whose leases could be renewed at any time."""
    engine = open_engine(database_url)
    factories.serve_always(engine)
    yield engine
    engine.dispose()


@pytest.fixture
async def batchers(engine: Engine) -> AsyncIterator[Batchers]:
    """The batchers of a replica on a fresh database."""
    batchers = Batchers(engine)
    yield batchers
    await batchers.close()


@pytest.fixture
def stores(batchers: Batchers) -> Stores:
    """The stores of the replica."""
    return Stores(batchers)


@pytest.fixture
def store(stores: Stores) -> SqlOperationStore:
    """The operation store of the replica."""
    return stores.operations


@pytest.fixture
async def others(engine: Engine) -> AsyncIterator[Stores]:
    """The stores of another replica on the same database."""
    batchers = Batchers(engine)
    yield Stores(batchers)
    await batchers.close()


@pytest.fixture
def replica(others: Stores) -> SqlOperationStore:
    """The operation store of the other replica."""
    return others.operations


@pytest.fixture
def stored(engine: Engine) -> Stored:
    """The rows of the database."""
    return Stored(engine)
