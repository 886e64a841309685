"""Checkpoints: stored with progress, handed to the next attempt, gone with the end."""

from datetime import timedelta

import pytest

from milepost.domain.operation import Payload, Status
from milepost.domain.sweep import RELEASE
from milepost.domain.transitions import TERMINAL, Transition
from tests import factories
from tests.contract.test_claims import LEASE, WORKER, claim

ONE = claim()
LATE = timedelta(seconds=1)
SAVED = Payload(type_url="type.googleapis.com/google.protobuf.Value", value=b"\x1a\x01a")
NEWER = Payload(type_url="type.googleapis.com/google.protobuf.Value", value=b"")


def progress(operation, checkpoint=None, **overrides):
    """Return progress of the worker with a checkpoint."""
    fields = {"access_filter": WORKER, "checkpoint": checkpoint, **overrides}
    return factories.change(Transition.PROGRESS, operation.id, **fields)


async def claimed(stores):
    """Return an operation that a worker has claimed."""
    await factories.create(stores.operations)
    (operation,) = await stores.work.claim(ONE)
    return operation


async def test_checkpoint_is_stored_with_progress(store, stores):
    """The newest checkpoint is kept, byte for byte; progress without one keeps it."""
    operation = await claimed(stores)
    for sent, kept in ((SAVED, SAVED), (None, SAVED), (NEWER, NEWER)):
        changed = (await store.apply(progress(operation, sent, progress=0.5))).operation
        assert changed.revision > operation.revision
        found = await store.get(operation.id, factories.access_filter())
        assert (found.checkpoint, found.progress) == (kept, 0.5)


@pytest.mark.parametrize("way", ["lease lost", Transition.RELEASE, Transition.RETRY])
async def test_next_attempt_gets_the_checkpoint(store, stores, engine, way):
    """However an attempt ends, the claim of the next one has its last checkpoint."""
    operation = await claimed(stores)
    await store.apply(progress(operation, SAVED))
    if way == "lease lost":
        factories.age(engine, operation.id, LEASE + LATE)
        assert await stores.sweeps.sweep(RELEASE, 10)
    else:
        await store.apply(
            factories.change(way, operation.id, access_filter=WORKER, delay=timedelta())
        )
    (again,) = await stores.work.claim(ONE)
    assert (again.id, again.attempt, again.checkpoint) == (operation.id, 2, SAVED)


@pytest.mark.parametrize("transition", [Transition.COMPLETE, Transition.FAIL, Transition.CANCEL])
async def test_end_drops_the_checkpoint(store, stores, transition):
    """A terminal operation has no checkpoint."""
    operation = await claimed(stores)
    await store.apply(progress(operation, SAVED))
    ended = (await store.apply(factories.change(transition, operation.id))).operation
    assert ended.status in TERMINAL
    assert ended.checkpoint is None


async def test_late_checkpoint_is_fenced_off(store, stores):
    """A worker whose attempt is over cannot replace the checkpoint of the next attempt."""
    operation = await claimed(stores)
    await store.apply(
        factories.change(Transition.RELEASE, operation.id, access_filter=WORKER, attempt=1)
    )
    (again,) = await stores.work.claim(ONE)
    await store.apply(progress(again, SAVED, attempt=2))
    with pytest.raises(Exception, match="attempt"):
        await store.apply(progress(operation, NEWER, attempt=1))
    found = await store.get(operation.id, factories.access_filter())
    assert (found.status, found.checkpoint) == (Status.PROCESSING, SAVED)
