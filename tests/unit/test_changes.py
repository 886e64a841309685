"""Who is woken by which change."""

import asyncio

import pytest

from milepost.domain.operation import new_operation_id
from milepost.tracking.changes import Changes

SECONDS = 5.0
ONE, OTHER = new_operation_id(), new_operation_id()


@pytest.fixture
def changes() -> Changes:
    """Nobody listens yet."""
    return Changes()


async def test_everybody_who_listens_to_it_is_woken(changes):
    """A change wakes all listeners of its operation, and nobody else."""
    with (
        changes.listen(ONE) as first,
        changes.listen(ONE) as second,
        changes.listen(OTHER) as third,
    ):
        changes.publish(ONE)
        assert await first.wait(SECONDS)
        assert await second.wait(SECONDS)
        assert not await third.wait(0.0)


async def test_hint_before_the_wait_is_kept_once(changes):
    """Hints that came before the wait are one hint: none is lost, none is counted twice."""
    with changes.listen(ONE) as listener:
        changes.publish(ONE)
        changes.publish(ONE)
        assert await listener.wait(SECONDS)
        assert not await listener.wait(0.0)


async def test_waiting_listener_is_woken(changes):
    """A change ends a wait that is going on."""
    with changes.listen(ONE) as listener:
        waiting = asyncio.create_task(listener.wait(SECONDS))
        await asyncio.sleep(0)
        changes.publish(ONE)
        assert await waiting


async def test_lost_hints_wake_everybody(changes):
    """When hints may have been lost everybody looks."""
    with changes.listen(ONE) as first, changes.listen(OTHER) as second:
        changes.publish_all()
        assert await first.wait(SECONDS)
        assert await second.wait(SECONDS)


async def test_nothing_is_kept_of_those_who_left(changes):
    """When the last listener of an operation leaves, nothing remains of it."""
    with changes.listen(ONE), changes.listen(ONE):
        pass
    assert not changes._listeners
