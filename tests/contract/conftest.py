"""The store under test, over each database, and a look at what it stored."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.engine import Engine

from milepost.storage.engine import open_engine
from milepost.storage.store import SqlOperationStore
from tests.contract.stored import Stored


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The engine of a fresh database."""
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
async def store(engine: Engine) -> AsyncIterator[SqlOperationStore]:
    """The store over a fresh database."""
    store = SqlOperationStore(engine)
    yield store
    await store.close()


@pytest.fixture
async def replica(engine: Engine) -> AsyncIterator[SqlOperationStore]:
    """Another store over the same database."""
    replica = SqlOperationStore(engine)
    yield replica
    await replica.close()


@pytest.fixture
def stored(engine: Engine) -> Stored:
    """What the database holds."""
    return Stored(engine)
