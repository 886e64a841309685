"""Who is woken by which change."""

import asyncio

import pytest

from milepost.domain.operation import new_operation_id
from milepost.tracking.subscriptions import Subscriptions

SECONDS = 5.0
ONE, OTHER = new_operation_id(), new_operation_id()


@pytest.fixture
def subscriptions() -> Subscriptions:
    """Nobody listens yet."""
    return Subscriptions()


async def test_everybody_who_listens_to_it_is_woken(subscriptions):
    """A change wakes all listeners of its operation, and nobody else."""
    with (
        subscriptions.subscribed(ONE) as first,
        subscriptions.subscribed(ONE) as second,
        subscriptions.subscribed(OTHER) as third,
    ):
        subscriptions.publish(ONE)
        assert await first.wait(SECONDS)
        assert await second.wait(SECONDS)
        assert not await third.wait(0.0)


async def test_hint_before_the_wait_is_kept_once(subscriptions):
    """Hints that came before the wait are one hint: none is lost, none is counted twice."""
    with subscriptions.subscribed(ONE) as subscriber:
        subscriptions.publish(ONE)
        subscriptions.publish(ONE)
        assert await subscriber.wait(SECONDS)
        assert not await subscriber.wait(0.0)


async def test_waiting_listener_is_woken(subscriptions):
    """A change ends a wait that is going on."""
    with subscriptions.subscribed(ONE) as subscriber:
        waiting = asyncio.create_task(subscriber.wait(SECONDS))
        await asyncio.sleep(0)
        subscriptions.publish(ONE)
        assert await waiting


async def test_lost_hints_wake_everybody(subscriptions):
    """When hints may have been lost everybody looks."""
    with subscriptions.subscribed(ONE) as first, subscriptions.subscribed(OTHER) as second:
        subscriptions.notify_all()
        assert await first.wait(SECONDS)
        assert await second.wait(SECONDS)


async def test_nothing_is_kept_of_those_who_left(subscriptions):
    """When the last listener of an operation leaves, nothing remains of it."""
    with subscriptions.subscribed(ONE), subscriptions.subscribed(ONE):
        pass
    assert not subscriptions.subscribers
