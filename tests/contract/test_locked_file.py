"""A SQLite file that another process has locked: writes fail in time, and reads work."""

import asyncio
import time

import pytest

from milepost.domain.errors import StoreUnavailable
from milepost.domain.operation import Status
from milepost.domain.transitions import Transition
from milepost.storage.batching import QUEUE_TIMEOUT_S
from tests import factories
from tests.contract.stored import answers
from tests.machine import slowdown


@pytest.fixture
def database_url(sqlite_url):
    """The URL of a SQLite file, which can be locked as a whole."""
    return sqlite_url


@pytest.fixture
def queue_timeout_s():
    """The default time that a call waits for the database."""
    return QUEUE_TIMEOUT_S


async def test_locked_file(store, stored):
    """A write fails within a second while the file is locked, a read does not wait."""
    operation = await factories.create(store)
    with stored.held(operation.id):
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.apply(factories.change(Transition.CANCEL, operation.id, request_id="r-1"))
        assert time.monotonic() - start < 1.0 * slowdown()
        assert await store.get(operation.id, factories.access_filter()) == operation
    async with asyncio.timeout(5):
        while True:
            change = factories.change(Transition.CANCEL, operation.id, request_id="r-1")
            (result,) = await answers(store.apply(change))
            if not isinstance(result, StoreUnavailable):
                break
    assert result.operation.status is Status.CANCELLED
    assert result.operation.revision == 2
