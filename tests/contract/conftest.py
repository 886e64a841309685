"""The stores under test, over each database, and a look at what they stored."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.engine import Engine

from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.operations import SqlOperationStore
from milepost.storage.stores import Stores
from tests.contract.stored import Stored


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The engine of a fresh database."""
    engine = open_engine(database_url)
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
    """The stores of that replica."""
    return Stores(batchers)


@pytest.fixture
def store(stores: Stores) -> SqlOperationStore:
    """Its operations."""
    return stores.operations


@pytest.fixture
async def others(engine: Engine) -> AsyncIterator[Stores]:
    """The stores of another replica on the same database."""
    batchers = Batchers(engine)
    yield Stores(batchers)
    await batchers.close()


@pytest.fixture
def replica(others: Stores) -> SqlOperationStore:
    """The operations of the other replica."""
    return others.operations


@pytest.fixture
def stored(engine: Engine) -> Stored:
    """What the database holds."""
    return Stored(engine)
