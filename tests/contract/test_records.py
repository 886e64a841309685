"""Events and deliveries: one transaction with the move that they tell of."""

import re

import pytest
import sqlalchemy as sa

from milepost.domain.lifecycle import Move
from milepost.domain.operation import Status, new_operation_id
from milepost.storage.tables import events
from tests import factories
from tests.contract.stored import answers


def squat(stored, operation, revision):
    """The place of the event of that revision is taken: whatever would write it fails."""
    stored.execute(
        sa.insert(events).values(
            operation_id=operation if isinstance(operation, str) else operation.id,
            revision=revision,
            type="operation.squatted",
            move="none",
            owner="nobody",
            actor="nobody",
            time=factories.LONG_AGO,
        )
    )


async def test_event_tells_who_did_what(store, stored):
    """Each change of status leaves one event: what, when, by whom, by which call and why (B224)."""
    operation = await factories.create(store, request_id="r-1")
    admin = factories.scope("admin", everything=True)
    cancel = factories.change(
        Move.CANCEL, operation.id, scope=admin, request_id="r-2", reason="too late"
    )
    after = (await store.apply(cancel)).operation
    created, cancelled = stored.events(operation.id)
    assert created.pop("time") >= operation.create_time
    assert cancelled.pop("time") >= after.cancel_time
    assert created == {
        "operation_id": operation.id,
        "revision": 1,
        "type": "operation.created",
        "move": "create",
        "owner": factories.OWNER,
        "actor": factories.OWNER,
        "request_id": "r-1",
        "reason": None,
    }
    assert cancelled == created | {
        "revision": 2,
        "type": "operation.cancelled",
        "move": "cancel",
        "actor": "admin",
        "request_id": "r-2",
        "reason": "too late",
    }


async def test_deliveries_are_for_subscribed_events(store, stored):
    """A delivery is queued for each event that was asked for, and for no other.

    Proves B107, B117, B131, B218.
    """
    operation = await factories.reach(
        store, Status.COMPLETED, callback_events=("operation.completed", "operation.failed")
    )
    (delivery,) = stored.deliveries(operation.id)
    assert re.fullmatch(r"msg_[0-9a-f]{32}", delivery.pop("id"))
    assert delivery.pop("create_time") >= operation.complete_time
    expected = {
        "operation_id": operation.id,
        "revision": operation.revision,
        "type": "operation.completed",
        "owner": factories.OWNER,
        "callback_url": operation.callback_url,
    }
    assert expected.items() <= delivery.items()


@pytest.mark.parametrize(
    "draft", [{"callback_url": None}, {"callback_events": ()}], ids=["no URL", "no event"]
)
async def test_nobody_is_told_unasked(store, stored, draft):
    """Without a callback URL, or without an event to send, nothing is ever queued (B38, B214)."""
    operation = await factories.reach(store, Status.COMPLETED, **draft)
    assert stored.deliveries(operation.id) == []


@pytest.mark.parametrize(
    ("status", "move"),
    [
        (Status.PENDING, Move.START),
        (Status.PENDING, Move.PROGRESS),
        (Status.PROCESSING, Move.COMPLETE),
        (Status.PROCESSING, Move.FAIL),
        (Status.PROCESSING, Move.CANCEL),
        (Status.COMPLETED, Move.FORGET),
    ],
)
async def test_no_move_without_its_event(store, stored, status, move):
    """When the event cannot be written the move is undone, and nobody is told of it."""
    operation = await factories.reach(store, status)
    squat(stored, operation, operation.revision + 1)
    before = stored.everything(operation.id)
    (answer,) = await answers(store.apply(factories.change(move, operation.id)))
    assert isinstance(answer, Exception)
    assert stored.everything(operation.id) == before


async def test_no_create_without_its_event(store, stored):
    """When the event of a create cannot be written there is no operation either."""
    operation_id = new_operation_id()
    squat(stored, operation_id, 1)
    (answer,) = await answers(store.insert(operation_id, factories.draft()))
    assert isinstance(answer, Exception)
    assert stored.operation(operation_id) is None


async def test_no_event_without_its_delivery(store, stored, engine):
    """When the delivery cannot be written, neither the move nor its event happened (B107)."""
    operation = await factories.reach(store, Status.PROCESSING)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE deliveries RENAME TO lost"))
    (answer,) = await answers(store.apply(factories.change(Move.COMPLETE, operation.id)))
    assert isinstance(answer, Exception)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE lost RENAME TO deliveries"))
    assert await store.get(operation.id, factories.scope()) == operation
    assert [event["type"] for event in stored.events(operation.id)][-1] == "operation.started"
