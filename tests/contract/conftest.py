"""Fixtures: the stores under test on each database, and the stored rows."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.engine import Engine

from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.operations import SqlOperationStore
from milepost.storage.stores import Stores
from tests import factories
from tests.contract.stored import Stored
from tests.postgres import PostgresServer


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of an empty database of each kind, for all tests of a module."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('shared') / 'milepost.db'}"
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    name = f"milepost_shared_{uuid.uuid4().hex}"
    postgres.create_database(name)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The engine of a fresh database, whose leases could be renewed at any time."""
    engine = open_engine(database_url)
    factories.serve_always(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def queue_timeout_s() -> float:
    """The time that a call waits for the database, which a busy machine holds up."""
    return 4.5


@pytest.fixture
async def batchers(engine: Engine, queue_timeout_s: float) -> AsyncIterator[Batchers]:
    """The batchers of a replica on a fresh database."""
    batchers = Batchers(engine, queue_timeout_s=queue_timeout_s)
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
async def others(engine: Engine, queue_timeout_s: float) -> AsyncIterator[Stores]:
    """The stores of another replica on the same database."""
    batchers = Batchers(engine, queue_timeout_s=queue_timeout_s)
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
