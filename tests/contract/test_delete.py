"""Deletes of terminal operations: callers, retries and errors."""

import pytest

from milepost.domain.errors import IllegalTransition, OperationDeleted, OperationNotFound
from milepost.domain.operation import Status
from milepost.domain.selection import Selection
from milepost.domain.transitions import DELETABLE, Transition
from tests import factories

ADMIN = factories.access_filter("admin", everything=True)
OTHERS = [
    factories.access_filter(factories.STRANGER),
    factories.access_filter("worker", functions=("*",)),
    ADMIN,
]


def purge(operation, **overrides):
    """Return the request to delete the operation."""
    return factories.change(Transition.PURGE, operation.id, **overrides)


@pytest.mark.parametrize("status", sorted(DELETABLE))
@pytest.mark.parametrize(
    "asker", [factories.access_filter(), ADMIN], ids=lambda asker: asker.subject
)
async def test_terminal_operation_is_purged(store, stored, asker, status):
    """The owner and an admin may delete a terminal operation; only its events remain."""
    operation = await factories.reach(store, status)
    await store.delete(purge(operation, access_filter=asker, request_id="r-1"))
    assert stored.operation(operation.id) is None
    last = stored.events(operation.id)[-1]
    assert (last["type"], last["actor"]) == ("operation.deleted", asker.subject)
    assert last["revision"] == operation.revision + 1
    assert (
        await factories.listed(store, factories.access_filter(), Selection(), None, 50, full=False)
        == []
    )


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING])
async def test_active_operation_is_not_forgotten(store, stored, status):
    """The delete of an active operation fails with the statuses that allow it."""
    operation = await factories.reach(store, status)
    before = stored.everything(operation.id)
    with pytest.raises(IllegalTransition) as caught:
        await store.delete(purge(operation))
    assert caught.value.allowed == tuple(sorted(DELETABLE))
    assert stored.everything(operation.id) == before


async def test_stranger_purges_nothing(store, stored):
    """The delete of another owner's operation fails as for a missing one."""
    operation = await factories.reach(store, Status.COMPLETED)
    before = stored.everything(operation.id)
    with pytest.raises(OperationNotFound):
        await store.delete(purge(operation, access_filter=OTHERS[0]))
    assert stored.everything(operation.id) == before


@pytest.mark.parametrize(
    "asker", [factories.access_filter(), ADMIN], ids=lambda asker: asker.subject
)
async def test_purging_again_is_fine(store, stored, asker):
    """A retried delete succeeds, and changes nothing."""
    operation = await factories.reach(store, Status.COMPLETED)
    change = purge(operation, access_filter=asker, request_id="r-1")
    await store.delete(change)
    before = stored.everything(operation.id)
    await store.delete(change)
    assert stored.everything(operation.id) == before


async def test_another_delete_finds_nothing(store):
    """Another delete of the same operation fails with OperationDeleted."""
    operation = await factories.reach(store, Status.COMPLETED)
    await store.delete(purge(operation, request_id="r-1"))
    for request_id in ("r-2", None):
        with pytest.raises(OperationDeleted):
            await store.delete(purge(operation, request_id=request_id))


async def test_deletes_without_request_id_are_no_repetitions(store):
    """A second delete without a request_id fails with OperationDeleted."""
    operation = await factories.reach(store, Status.COMPLETED)
    await store.delete(purge(operation))
    with pytest.raises(OperationDeleted):
        await store.delete(purge(operation))


async def test_only_the_owner_is_told_of_the_deletion(store):
    """The owner of a deleted operation gets OperationDeleted, others get OperationNotFound."""
    operation = await factories.reach(store, Status.COMPLETED)
    await store.delete(purge(operation, access_filter=ADMIN, request_id="r-1"))
    with pytest.raises(OperationDeleted):
        await store.get(operation.id, factories.access_filter())
    for asker in OTHERS:
        calls = [store.get(operation.id, asker)]
        calls += [
            store.apply(
                factories.change(transition, operation.id, access_filter=asker, request_id="r-2")
            )
            for transition in (Transition.PROGRESS, Transition.PURGE)
        ]
        for call in calls:
            with pytest.raises(OperationNotFound) as caught:
                await call
            assert type(caught.value) is OperationNotFound


async def test_nothing_happens_to_what_was_deleted(store, stored):
    """Every transition of a deleted operation fails, and writes no event."""
    operation = await factories.reach(store, Status.COMPLETED)
    await store.delete(purge(operation))
    before = stored.everything(operation.id)
    for transition in (
        Transition.START,
        Transition.PROGRESS,
        Transition.COMPLETE,
        Transition.FAIL,
        Transition.CANCEL,
    ):
        with pytest.raises(OperationDeleted):
            await store.apply(factories.change(transition, operation.id))
    assert stored.everything(operation.id) == before
