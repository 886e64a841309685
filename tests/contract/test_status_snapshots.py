"""Status snapshots: many operations in one read, with what tells a worker to stop."""

from datetime import timedelta

import pytest

from milepost.domain.interruption import StatusSnapshot
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.transitions import Transition
from tests import factories

GRACE = timedelta(minutes=1)


def by_id(snapshots):
    """Return the snapshots by their operations."""
    return {snapshot.id: snapshot for snapshot in snapshots}


@pytest.mark.parametrize("status", list(Status))
async def test_one_operation(store, status):
    """The snapshot of one operation holds its status, revision, attempt and error code."""
    operation = await factories.reach(store, status)
    (snapshot,) = await store.status_snapshots([operation.id])
    assert snapshot == StatusSnapshot(
        id=operation.id,
        status=status,
        revision=operation.revision,
        attempt=operation.attempt,
        error_code=factories.error().code if status is Status.FAILED else None,
    )


async def test_many_operations(store):
    """One read returns the snapshots of many operations, and leaves out those that are gone."""
    operations = [await factories.reach(store, status) for status in Status for _ in range(3)]
    ids = [operation.id for operation in operations]
    found = by_id(await store.status_snapshots([*ids, new_operation_id()]))
    assert {id_: found[id_].status for id_ in ids} == {each.id: each.status for each in operations}
    assert len(found) == len(ids)
    assert await store.status_snapshots([new_operation_id()]) == []


async def test_requested_cancel(store):
    """The snapshot says that a cancel was requested."""
    calm, asked = [await factories.reach(store, Status.PROCESSING) for _ in range(2)]
    await store.apply(factories.change(Transition.REQUEST_CANCEL, asked.id, grace=GRACE))
    found = by_id(await store.status_snapshots([calm.id, asked.id]))
    assert (found[calm.id].is_cancel_requested, found[asked.id].is_cancel_requested) == (
        False,
        True,
    )
