"""Forgetting: a terminal operation, by who may, once."""

import pytest

from milepost.domain.errors import IllegalMove, OperationDeleted, OperationNotFound
from milepost.domain.lifecycle import DELETABLE, Move
from milepost.domain.operation import Status
from milepost.domain.ports import Selection
from tests import factories

ADMIN = factories.scope("admin", everything=True)
OTHERS = [
    factories.scope(factories.STRANGER),
    factories.scope("worker", functions=("*",)),
    ADMIN,
]


def forget(operation, **overrides):
    """The wish that the operation were forgotten."""
    return factories.change(Move.FORGET, operation.id, **overrides)


@pytest.mark.parametrize("status", sorted(DELETABLE))
@pytest.mark.parametrize("asker", [factories.scope(), ADMIN], ids=lambda asker: asker.subject)
async def test_terminal_operation_is_forgotten(store, stored, asker, status):
    """Owner and admin may forget a terminal operation; only its events are left (B176)."""
    operation = await factories.reach(store, status)
    await store.forget(forget(operation, scope=asker, request_id="r-1"))
    assert stored.operation(operation.id) is None
    last = stored.events(operation.id)[-1]
    assert (last["type"], last["actor"]) == ("operation.deleted", asker.subject)
    assert last["revision"] == operation.revision + 1
    assert await store.list(factories.scope(), Selection(), None, 50, full=False) == []


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING])
async def test_active_operation_is_not_forgotten(store, stored, status):
    """An active operation is refused with the statuses that could be forgotten (B176)."""
    operation = await factories.reach(store, status)
    before = stored.everything(operation.id)
    with pytest.raises(IllegalMove) as caught:
        await store.forget(forget(operation))
    assert caught.value.allowed == tuple(sorted(DELETABLE))
    assert stored.everything(operation.id) == before


async def test_stranger_forgets_nothing(store, stored):
    """For a stranger there is nothing to be forgotten (B176)."""
    operation = await factories.reach(store, Status.COMPLETED)
    before = stored.everything(operation.id)
    with pytest.raises(OperationNotFound):
        await store.forget(forget(operation, scope=OTHERS[0]))
    assert stored.everything(operation.id) == before


@pytest.mark.parametrize("asker", [factories.scope(), ADMIN], ids=lambda asker: asker.subject)
async def test_forgetting_again_is_fine(store, stored, asker):
    """The same delete with the same request_id succeeds again, and changes nothing (B177)."""
    operation = await factories.reach(store, Status.COMPLETED)
    change = forget(operation, scope=asker, request_id="r-1")
    await store.forget(change)
    before = stored.everything(operation.id)
    await store.forget(change)
    assert stored.everything(operation.id) == before


async def test_another_delete_finds_nothing(store):
    """A second delete of another call is told that the operation was deleted (B177)."""
    operation = await factories.reach(store, Status.COMPLETED)
    await store.forget(forget(operation, request_id="r-1"))
    for request_id in ("r-2", None):
        with pytest.raises(OperationDeleted):
            await store.forget(forget(operation, request_id=request_id))


async def test_deletes_without_request_id_are_no_repetitions(store):
    """A delete without a request_id cannot be told from another one (B177)."""
    operation = await factories.reach(store, Status.COMPLETED)
    await store.forget(forget(operation))
    with pytest.raises(OperationDeleted):
        await store.forget(forget(operation))


async def test_only_the_owner_is_told_of_the_deletion(store):
    """Of a deleted operation the owner hears that it was deleted, others that there is none.

    Proves B171.
    """
    operation = await factories.reach(store, Status.COMPLETED)
    await store.forget(forget(operation, scope=ADMIN, request_id="r-1"))
    with pytest.raises(OperationDeleted):
        await store.get(operation.id, factories.scope())
    for asker in OTHERS:
        calls = [store.get(operation.id, asker)]
        calls += [
            store.apply(factories.change(move, operation.id, scope=asker, request_id="r-2"))
            for move in (Move.PROGRESS, Move.FORGET)
        ]
        for call in calls:
            with pytest.raises(OperationNotFound) as caught:
                await call
            assert type(caught.value) is OperationNotFound


async def test_nothing_happens_to_what_was_deleted(store, stored):
    """No move brings a deleted operation back, and none leaves an event."""
    operation = await factories.reach(store, Status.COMPLETED)
    await store.forget(forget(operation))
    before = stored.everything(operation.id)
    for move in (Move.START, Move.PROGRESS, Move.COMPLETE, Move.FAIL, Move.CANCEL):
        with pytest.raises(OperationDeleted):
            await store.apply(factories.change(move, operation.id))
    assert stored.everything(operation.id) == before
