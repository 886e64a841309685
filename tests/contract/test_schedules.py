"""Schedules and priorities: what is claimed when, and in which order."""

from datetime import UTC, datetime, timedelta

import pytest

from tests import factories
from tests.contract.test_claims import claim

ONE = claim()
SOON = timedelta(minutes=10)


def at(delay):
    """Return the time after a delay."""
    return datetime.now(UTC) + delay


async def test_scheduled_operation_waits(store, stores, engine):
    """An operation is claimed from its schedule_time on; ttl and queue_timeout count from it."""
    operation = await factories.create(
        store, schedule_time=at(SOON), ttl=timedelta(hours=1), queue_timeout=timedelta(minutes=5)
    )
    assert operation.schedule_time is not None
    assert operation.next_attempt_time == operation.schedule_time
    assert operation.expire_time == operation.schedule_time + timedelta(hours=1)
    assert operation.queue_expire_time == operation.schedule_time + timedelta(minutes=5)
    assert (await stores.work.wake_due(10)).functions == ()
    assert await stores.work.claim(ONE) == []
    factories.age(engine, operation.id, SOON)
    await stores.work.wake_due(10)
    (claimed,) = await stores.work.claim(ONE)
    assert claimed.id == operation.id
    assert claimed.schedule_time is not None


@pytest.mark.parametrize("delay", [timedelta(days=-1), timedelta()])
async def test_schedule_in_the_past_is_now(store, stores, delay):
    """An operation that is scheduled for the past is claimable at once."""
    operation = await factories.create(store, schedule_time=at(delay), ttl=timedelta(hours=1))
    assert operation.next_attempt_time is None
    assert operation.expire_time == operation.create_time + timedelta(hours=1)
    assert len(await stores.work.claim(ONE)) == 1


async def test_higher_priority_first(store, stores):
    """Of one owner, a higher priority is claimed first, and the older one among equals."""
    created = [await factories.create(store, priority=priority) for priority in (5, 9, 0, 9, 5)]
    claimed = [(await stores.work.claim(ONE))[0].id for _ in created]
    in_turn = sorted(created, key=lambda o: (-o.priority, o.create_time, o.id))
    assert claimed == [operation.id for operation in in_turn]
    again = [await factories.create(store, priority=priority) for priority in (0, 9)]
    batch = await stores.work.claim(claim(max_operations=10))
    assert {operation.id for operation in batch} == {operation.id for operation in again}


async def test_owners_take_turns_whatever_their_priorities(store, stores):
    """A busy owner with the highest priority does not starve another one."""
    for _ in range(10):
        await factories.create(store, owner="busy", priority=9)
    await factories.create(store, owner="other", priority=0)
    owners = [(await stores.work.claim(ONE))[0].owner for _ in range(2)]
    assert sorted(owners) == ["busy", "other"]
