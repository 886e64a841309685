"""A database file without room: each call gets the answer that the database supports."""

import pytest

from milepost.domain.errors import StoreUnavailable
from milepost.domain.operation import Status
from milepost.domain.transitions import Transition, TransitionResult
from milepost.storage.batchers import alone, atomic
from milepost.storage.health import probe_writes
from tests import factories
from tests.contract.stored import answers

CALLS = 60
METADATA = "x" * 9_000
MAX_PAGES = 150
ENOUGH_PAGES = 100_000


@pytest.fixture
def database_url(sqlite_url):
    """A SQLite file, whose size can be limited without a disk of its own."""
    return sqlite_url


def limit_pages(batchers, pages):
    """Let the file have no more than `pages` pages of 4 KiB."""

    def run(session):
        session.cursor.execute(f"PRAGMA max_page_count = {pages}")

    return batchers.writes.submit(alone(run), None, object())


async def fill(store):
    """Return the answers to more creates than there is room for."""
    return await answers(
        *(factories.create(store, owner=f"owner-{n}", metadata=METADATA) for n in range(CALLS))
    )


async def test_full_disk(batchers, store, stored):
    """Creates without room are UNAVAILABLE, and exactly the others are stored, in one batch too.

    The database has a problem until there is room again.
    """
    first = await factories.create(store)
    assert await batchers.problem() is None
    await limit_pages(batchers, MAX_PAGES)
    found = await fill(store)
    refused = [each for each in found if isinstance(each, Exception)]
    assert {type(each) for each in refused} == {StoreUnavailable}
    assert stored.count() == 1 + CALLS - len(refused)
    for _ in range(2):
        assert await batchers.problem() == "the database refuses writes: its disk is full"
    assert await store.get(first.id, factories.access_filter()) == first
    await limit_pages(batchers, ENOUGH_PAGES)
    while await batchers.problem():
        pass
    await factories.create(store, metadata=METADATA)


async def test_batch_with_a_refused_statement(batchers, store, stored):
    """The other calls of a batch are stored exactly if they are answered with a result."""
    operation = await factories.reach(store, Status.PROCESSING)
    await limit_pages(batchers, MAX_PAGES)
    await fill(store)
    found = await answers(
        store.apply(factories.change(Transition.PROGRESS, operation.id)),
        batchers.writes.submit(atomic(probe_writes), None, object()),
        store.apply(factories.change(Transition.CANCEL, operation.id)),
    )
    assert isinstance(found[1], StoreUnavailable)
    changes = [each for each in found if isinstance(each, TransitionResult)]
    assert len(changes) in {0, 2}
    row = stored.operation(operation.id)
    assert row is not None
    assert row["revision"] == operation.revision + len(changes)
