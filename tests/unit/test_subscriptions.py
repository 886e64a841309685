"""Subscriptions: the notifications that each subscriber receives."""

import asyncio

import pytest

from milepost.domain.operation import new_operation_id
from milepost.tracking.subscriptions import Subscriptions

SECONDS = 5.0
ONE, OTHER = new_operation_id(), new_operation_id()


@pytest.fixture
def subscriptions() -> Subscriptions:
    """Subscriptions without a subscriber."""
    return Subscriptions()


async def test_change_notifies_the_subscribers_of_its_operation(subscriptions):
    """A change notifies all subscribers of its operation, and no others."""
    with (
        subscriptions.subscribed(ONE) as first,
        subscriptions.subscribed(ONE) as second,
        subscriptions.subscribed(OTHER) as third,
    ):
        subscriptions.publish(ONE)
        assert await first.wait(SECONDS)
        assert await second.wait(SECONDS)
        assert not await third.wait(0.0)


async def test_notification_before_the_wait_is_kept_once(subscriptions):
    """Notifications before a wait are one: none is lost, none is counted twice."""
    with subscriptions.subscribed(ONE) as subscriber:
        subscriptions.publish(ONE)
        subscriptions.publish(ONE)
        assert await subscriber.wait(SECONDS)
        assert not await subscriber.wait(0.0)


async def test_change_ends_a_wait(subscriptions):
    """A change ends a wait that is under way."""
    with subscriptions.subscribed(ONE) as subscriber:
        waiting = asyncio.create_task(subscriber.wait(SECONDS))
        await asyncio.sleep(0)
        subscriptions.publish(ONE)
        assert await waiting


async def test_all_subscribers_can_be_notified(subscriptions):
    """All subscribers are notified when notifications may have been lost."""
    with subscriptions.subscribed(ONE) as first, subscriptions.subscribed(OTHER) as second:
        subscriptions.notify_all()
        assert await first.wait(SECONDS)
        assert await second.wait(SECONDS)


async def test_nothing_is_left_after_the_last_subscriber(subscriptions):
    """When the last subscriber of an operation unsubscribes, nothing is left of it."""
    with subscriptions.subscribed(ONE), subscriptions.subscribed(ONE):
        pass
    assert not subscriptions.polled
