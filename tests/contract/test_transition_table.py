"""Every status and every transition: the store makes exactly those that the table allows."""

from itertools import product

import pytest

from milepost.domain.errors import IllegalTransition, OperationNotFound
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.transitions import CALLBACK_EVENTS, TABLE, Transition
from milepost.storage.statements import EFFECTS
from tests import factories

EVERY = list(product(Status, EFFECTS))
LEGAL = [
    (status, transition) for status, transition in EVERY if status in TABLE[transition].sources
]
# A pending operation is purged only when it has expired; DeleteOperation is for terminal ones.
LEGAL.remove((Status.PENDING, Transition.PURGE))
ILLEGAL = [pair for pair in EVERY if pair not in LEGAL]
REMOVING = [pair for pair in LEGAL if TABLE[pair[1]].target is None]
CHANGING = [pair for pair in LEGAL if pair not in REMOVING]


@pytest.mark.parametrize(("status", "transition"), CHANGING)
async def test_legal_move_enters_the_status_of_the_table(store, stored, status, transition):
    """A legal transition enters the target of the table, with one revision and one event."""
    rule = TABLE[transition]
    before = await factories.reach(store, status)
    events, deliveries = stored.events(before.id), stored.deliveries(before.id)
    after = (await store.apply(factories.change(transition, before.id))).operation
    assert after.status is rule.target
    assert after.revision == before.revision + 1
    new_events = stored.events(before.id)[len(events) :]
    expected = [] if status in rule.keeping else [(after.revision, rule.event)]
    assert [(event["revision"], event["type"]) for event in new_events] == expected
    notified = [event for event in new_events if event["type"] in CALLBACK_EVENTS]
    assert len(stored.deliveries(before.id)) == len(deliveries) + len(notified)
    assert stored.operation(before.id)["status"] == rule.target


@pytest.mark.parametrize(("status", "transition"), REMOVING)
async def test_legal_removal_leaves_only_its_event(store, stored, status, transition):
    """A deleted operation leaves only its events."""
    before = await factories.reach(store, status)
    await store.apply(factories.change(transition, before.id))
    assert stored.operation(before.id) is None
    last = stored.events(before.id)[-1]
    assert (last["revision"], last["type"]) == (before.revision + 1, TABLE[transition].event)


@pytest.mark.parametrize(("status", "transition"), ILLEGAL)
async def test_illegal_move_changes_nothing(store, stored, status, transition):
    """An illegal transition fails with the current and the allowed statuses, and changes no row."""
    operation = await factories.reach(store, status)
    before = stored.everything(operation.id)
    change = factories.change(transition, operation.id)
    with pytest.raises(IllegalTransition) as caught:
        await store.apply(change)
    refused = caught.value
    assert (refused.transition, refused.status) == (transition, status)
    assert refused.allowed == tuple(sorted(change.sources))
    assert stored.everything(operation.id) == before


@pytest.mark.parametrize("transition", EFFECTS)
async def test_move_of_an_unknown_operation_stores_nothing(store, stored, transition):
    """A transition of an unknown operation fails as not found, and stores nothing."""
    unknown = new_operation_id()
    with pytest.raises(OperationNotFound) as caught:
        await store.apply(factories.change(transition, unknown))
    assert type(caught.value) is OperationNotFound
    assert stored.everything(unknown) == (None, [], [])


def test_every_move_by_request_is_in_the_matrix():
    """The matrix covers every transition except creates, claims and those of the sweeper alone."""
    assert set(Transition) - set(EFFECTS) == {
        Transition.CREATE,
        Transition.CLAIM,
        Transition.ABANDON,
        Transition.EXPIRE,
    }
