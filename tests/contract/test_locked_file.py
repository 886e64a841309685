"""When another process holds the SQLite file writers are told so, and readers go on."""

import asyncio
import time

import pytest

from milepost.domain.errors import StoreUnavailable
from milepost.domain.operation import Status
from milepost.domain.transitions import Transition
from tests import factories
from tests.contract.stored import answers


@pytest.fixture
def database_url(sqlite_url):
    """Only a file can be locked as a whole."""
    return sqlite_url


async def test_locked_file(store, stored):
    """A write waits less than a second for the file, reads do not wait, and then all is well."""
    operation = await factories.create(store)
    with stored.held(operation.id):
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.apply(factories.change(Transition.CANCEL, operation.id, request_id="r-1"))
        assert time.monotonic() - start < 1.0
        assert await store.get(operation.id, factories.access_filter()) == operation
    async with asyncio.timeout(5):
        while True:
            change = factories.change(Transition.CANCEL, operation.id, request_id="r-1")
            (answer,) = await answers(store.apply(change))
            if not isinstance(answer, StoreUnavailable):
                break
    assert answer.operation.status is Status.CANCELLED
    assert answer.operation.revision == 2
