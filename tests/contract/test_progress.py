"""Progress: it grows, starts pending operations, and changes nothing else."""

import dataclasses
import math

import pytest

from milepost.domain.errors import ProgressDecrease
from milepost.domain.operation import Status
from milepost.domain.transitions import PROGRESS_TOLERANCE, Transition
from tests import factories


@pytest.fixture
async def half(store):
    """A processing operation with progress 0.5."""
    operation = await factories.reach(store, Status.PROCESSING, metadata='{"a":1}')
    change = factories.change(Transition.PROGRESS, operation.id, progress=0.5, message="half")
    await store.apply(change)
    return await store.get(operation.id, factories.access_filter())


async def report(store, operation, **report):
    """Return the stored operation after a report of progress."""
    result = await store.apply(factories.change(Transition.PROGRESS, operation.id, **report))
    assert not result.replayed
    stored = await store.get(operation.id, factories.access_filter())
    # The result has no payloads.
    assert result.operation == dataclasses.replace(stored, metadata=result.operation.metadata)
    return stored


async def test_progress_grows(store, half):
    """A report changes progress, its time and the revision, and nothing else."""
    after = await report(store, half, progress=0.75)
    assert after == dataclasses.replace(
        half, progress=0.75, progress_time=after.progress_time, revision=half.revision + 1
    )


async def test_same_progress_is_progress(store, half):
    """A report of the stored progress is accepted."""
    after = await report(store, half, progress=0.5)
    assert (after.progress, after.revision) == (0.5, half.revision + 1)


async def test_small_dip_is_forgiven(store, half):
    """A decrease of at most 0.001 is accepted, and the larger value is kept."""
    assert (await report(store, half, progress=0.4995)).progress == 0.5


async def test_decrease_is_refused(store, stored, half):
    """A decrease is refused with both values, and nothing changes."""
    before = stored.everything(half.id)
    with pytest.raises(ProgressDecrease) as caught:
        await store.apply(factories.change(Transition.PROGRESS, half.id, progress=0.4))
    assert (caught.value.current, caught.value.requested) == (0.5, 0.4)
    assert stored.everything(half.id) == before


async def test_database_and_domain_draw_the_same_line(store, half):
    """The statement and the domain have the same limit for a decrease, to the last bit."""
    edge = 0.5 - PROGRESS_TOLERANCE
    assert (await report(store, half, progress=edge)).progress == 0.5
    below = math.nextafter(edge, 0.0)
    with pytest.raises(ProgressDecrease):
        await store.apply(factories.change(Transition.PROGRESS, half.id, progress=below))


async def test_message_stays_until_another_comes(store, half):
    """A report without a message keeps the earlier message."""
    assert (await report(store, half, progress=0.6)).progress_message == "half"
    assert (await report(store, half, message="more")).progress_message == "more"


async def test_empty_report_keeps_the_value(store, half):
    """A report without a value keeps the progress, and updates its time and the revision."""
    after = await report(store, half)
    assert (after.progress, after.revision) == (0.5, half.revision + 1)
    assert after.progress_time >= half.progress_time


async def test_progress_starts_what_is_pending(store):
    """The first report of a pending operation starts it."""
    pending = await factories.create(store)
    after = await report(store, pending, progress=0.1, message="first", worker="w-1")
    assert (after.status, after.progress, after.attempt) == (Status.PROCESSING, 0.1, 1)
    assert (after.worker, after.progress_message) == ("w-1", "first")
    assert after.start_time is not None
    assert after.revision == 2


async def test_progress_of_nothing_yet(store):
    """Progress 0.0 is stored as a float, not as absent."""
    started = await factories.reach(store, Status.PROCESSING)
    after = await report(store, started, progress=0.0)
    assert after.progress == 0.0
    assert isinstance(after.progress, float)


async def test_progress_records_only_the_start(store, stored):
    """Only the report that starts an operation writes an event."""
    pending = await factories.create(store)
    for step in range(1, 4):
        await report(store, pending, progress=step / 10)
    assert [event["type"] for event in stored.events(pending.id)] == [
        "operation.created",
        "operation.started",
    ]
    assert len(stored.deliveries(pending.id)) == 1
