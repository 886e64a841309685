"""Every status and every move: what the table allows happens, and nothing else."""

from itertools import product

import pytest

from milepost.domain.errors import IllegalMove, OperationNotFound
from milepost.domain.lifecycle import TABLE, Move
from milepost.domain.operation import Status, new_operation_id
from milepost.storage.statements import EFFECTS
from tests import factories

EVERY = list(product(Status, EFFECTS))
LEGAL = [(status, move) for status, move in EVERY if status in TABLE[move].leaves]
# A pending operation is forgotten only when it has expired: DeleteOperation is for terminal ones.
LEGAL.remove((Status.PENDING, Move.FORGET))
ILLEGAL = [pair for pair in EVERY if pair not in LEGAL]
REMOVING = [pair for pair in LEGAL if TABLE[pair[1]].enters is None]
MOVING = [pair for pair in LEGAL if pair not in REMOVING]


@pytest.mark.parametrize(("status", "move"), MOVING)
async def test_legal_move_enters_the_status_of_the_table(store, stored, status, move):
    """A legal move leads where the table says, by one revision and one event (B86, B113, B120)."""
    rule = TABLE[move]
    before = await factories.reach(store, status)
    events, deliveries = stored.events(before.id), stored.deliveries(before.id)
    after = (await store.apply(factories.change(move, before.id))).operation
    assert after.status is rule.enters
    assert after.revision == before.revision + 1
    new_events = stored.events(before.id)[len(events) :]
    expected = [] if status in rule.keeping else [(after.revision, rule.event)]
    assert [(event["revision"], event["type"]) for event in new_events] == expected
    assert len(stored.deliveries(before.id)) == len(deliveries) + len(new_events)
    assert stored.operation(before.id)["status"] == rule.enters


@pytest.mark.parametrize(("status", "move"), REMOVING)
async def test_legal_removal_leaves_only_its_event(store, stored, status, move):
    """A terminal operation that is forgotten leaves its events and nothing else (B176)."""
    before = await factories.reach(store, status)
    await store.apply(factories.change(move, before.id))
    assert stored.operation(before.id) is None
    last = stored.events(before.id)[-1]
    assert (last["revision"], last["type"]) == (before.revision + 1, TABLE[move].event)


@pytest.mark.parametrize(("status", "move"), ILLEGAL)
async def test_illegal_move_changes_nothing(store, stored, status, move):
    """An illegal move names the status found and those allowed, and leaves every row alone.

    Proves B76, B77, B87, B101 to B104, B112, B122, B123, B176.
    """
    operation = await factories.reach(store, status)
    before = stored.everything(operation.id)
    change = factories.change(move, operation.id)
    with pytest.raises(IllegalMove) as caught:
        await store.apply(change)
    refused = caught.value
    assert (refused.move, refused.status) == (move, status)
    assert refused.allowed == tuple(sorted(change.leaves))
    assert stored.everything(operation.id) == before


@pytest.mark.parametrize("move", EFFECTS)
async def test_move_of_an_unknown_operation_stores_nothing(store, stored, move):
    """A move of an id that was never given is not found and leaves no trace.

    Proves B75, B92, B105, B114, B124.
    """
    unknown = new_operation_id()
    with pytest.raises(OperationNotFound) as caught:
        await store.apply(factories.change(move, unknown))
    assert type(caught.value) is OperationNotFound
    assert stored.everything(unknown) == (None, [], [])


def test_every_move_by_request_is_in_the_matrix():
    """The matrix leaves out only what is not a change of one known operation by request."""
    assert set(Move) - set(EFFECTS) == {
        Move.CREATE,
        Move.CLAIM,
        Move.RELEASE,
        Move.ABANDON,
        Move.EXPIRE,
    }
