"""Events and deliveries: written in one transaction with their transition."""

import re
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from milepost.domain.operation import Status, new_operation_id
from milepost.domain.transitions import Transition
from milepost.storage.tables import events
from tests import factories
from tests.contract.stored import answers


def block_event(stored, operation, revision):
    """Insert an event at `revision`, so that the transition to it fails today.

    On PostgreSQL the events of each day have a key of their own.
    """
    stored.execute(
        sa.insert(events).values(
            operation_id=operation if isinstance(operation, str) else operation.id,
            revision=revision,
            type="operation.squatted",
            transition="none",
            owner="nobody",
            actor="nobody",
            time=datetime.now(UTC),
        )
    )


async def test_event_tells_who_did_what(store, stored):
    """A status change has one event with its type, time, actor, request_id and reason."""
    operation = await factories.create(store, request_id="r-1")
    admin = factories.access_filter("admin", everything=True)
    cancel = factories.change(
        Transition.CANCEL, operation.id, access_filter=admin, request_id="r-2", reason="too late"
    )
    after = (await store.apply(cancel)).operation
    created, cancelled = stored.events(operation.id)
    assert created.pop("time") >= operation.create_time
    assert cancelled.pop("time") >= after.cancel_time
    assert created == {
        "operation_id": operation.id,
        "revision": 1,
        "type": "operation.created",
        "transition": "create",
        "owner": factories.OWNER,
        "actor": factories.OWNER,
        "request_id": "r-1",
        "reason": None,
        "attempt": 0,
        "worker": None,
        "errors": None,
    }
    assert cancelled == created | {
        "revision": 2,
        "type": "operation.cancelled",
        "transition": "cancel",
        "actor": "admin",
        "request_id": "r-2",
        "reason": "too late",
    }


async def test_deliveries_are_for_subscribed_events(store, stored):
    """A delivery is written for each event type in callback_events, and for no other."""
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
    "new_operation", [{"callback_url": None}, {"callback_events": ()}], ids=["no URL", "no event"]
)
async def test_nobody_is_told_unasked(store, stored, new_operation):
    """An operation without a callback URL or without callback_events has no delivery."""
    operation = await factories.reach(store, Status.COMPLETED, **new_operation)
    assert stored.deliveries(operation.id) == []


@pytest.mark.parametrize(
    ("status", "transition"),
    [
        (Status.PENDING, Transition.START),
        (Status.PENDING, Transition.PROGRESS),
        (Status.PROCESSING, Transition.COMPLETE),
        (Status.PROCESSING, Transition.FAIL),
        (Status.PROCESSING, Transition.CANCEL),
        (Status.COMPLETED, Transition.PURGE),
    ],
)
async def test_no_move_without_its_event(store, stored, status, transition):
    """A transition whose event cannot be written is undone."""
    operation = await factories.reach(store, status)
    block_event(stored, operation, operation.revision + 1)
    before = stored.everything(operation.id)
    (answer,) = await answers(store.apply(factories.change(transition, operation.id)))
    assert isinstance(answer, Exception)
    assert stored.everything(operation.id) == before


async def test_no_create_without_its_event(store, stored):
    """A create whose event cannot be written is undone."""
    operation_id = new_operation_id()
    block_event(stored, operation_id, 1)
    (answer,) = await answers(store.insert(operation_id, factories.new_operation()))
    assert isinstance(answer, Exception)
    assert stored.operation(operation_id) is None


async def test_no_event_without_its_delivery(store, stored, engine):
    """A transition whose delivery cannot be written is undone with its event."""
    operation = await factories.reach(store, Status.PROCESSING)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE deliveries RENAME TO lost"))
    (answer,) = await answers(store.apply(factories.change(Transition.COMPLETE, operation.id)))
    assert isinstance(answer, Exception)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE lost RENAME TO deliveries"))
    assert await store.get(operation.id, factories.access_filter()) == operation
    assert [event["type"] for event in stored.events(operation.id)][-1] == "operation.started"
