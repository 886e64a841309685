"""The workload: active operations by function, the age of pending ones, the oldest due webhook."""

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.domain.transitions import Transition
from milepost.storage.dialects import Instant, Span, clock
from milepost.storage.tables import deliveries, operations
from tests import factories
from tests.contract.test_claims import CLAIM

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SLACK = timedelta(seconds=30)
"""Time that a test may take on a busy machine."""
EARLY = sa.type_coerce(clock().op("-")(sa.literal(MINUTE, Span())), Instant())
TEN_EARLIER = sa.type_coerce(clock().op("-")(sa.literal(10 * MINUTE, Span())), Instant())


async def load(stores, max_functions=10, max_operations=100):
    """Return the loads of the functions, by name."""
    workload = await stores.workload.workload(max_functions, max_operations)
    return {each.function: each for each in workload.functions}


def lasted(age, time):
    """Return whether a measured age is that of a wait that began `time` ago."""
    return time <= age + timedelta(milliseconds=1) and age < time + SLACK


async def test_empty_store_has_no_load(stores):
    """Without operations no function is measured, and no webhook is due."""
    workload = await stores.workload.workload(10, 10)
    assert list(workload.functions) == []
    assert workload.webhook_overdue == timedelta()


async def test_active_operations_are_counted_by_function_and_status(store, stores):
    """Active operations are counted under their function and status, and terminal ones are not."""
    for function in ("a", "b"):
        for status in Status:
            await factories.reach(store, status, function=function)
    await factories.create(store, function="b")
    found = await load(stores)
    assert found["a"].active == {Status.PENDING: 1, Status.PROCESSING: 1}
    assert found["b"].active == {Status.PENDING: 2, Status.PROCESSING: 1}


async def test_counts_and_functions_are_bounded(store, stores):
    """No more functions and operations are counted than wanted, and functions share these."""
    for function in ("a", "b", "c"):
        for _ in range(3):
            await factories.create(store, function=function)
    found = await load(stores, max_functions=2, max_operations=4)
    assert sorted(found) == ["a", "b"]
    assert [found[name].active[Status.PENDING] for name in "ab"] == [2, 2]


async def test_age_is_that_of_the_oldest(store, stores, engine):
    """The age of a function is that of its oldest pending operation, of any owner and priority."""
    for minutes, priority, owner in ((1, 9, "x"), (10, 0, "y"), (2, 5, "z")):
        operation = await factories.create(store, priority=priority, owner=owner)
        factories.age(engine, operation.id, minutes * MINUTE)
    found = await load(stores)
    assert lasted(found[factories.FUNCTION].oldest_pending_age, 10 * MINUTE)


async def test_no_age_without_claimable_operations(store, stores, stored, engine):
    """Operations that run, have ended, have expired or wait for their time have no pending age."""
    for status in (Status.PROCESSING, Status.COMPLETED):
        operation = await factories.reach(store, status)
        factories.age(engine, operation.id, MINUTE)
    expired = await factories.create(store, ttl=HOUR)
    factories.age(engine, expired.id, 2 * HOUR)
    delayed = await factories.create(store)
    factories.age(engine, delayed.id, MINUTE)
    stored.execute(
        sa.update(operations)
        .where(operations.c.id == delayed.id)
        .values(next_attempt_time=factories.FAR_AWAY)
    )
    (found,) = (await load(stores)).values()
    assert found.oldest_pending_age == timedelta()
    assert found.active[Status.PENDING] == 2


async def test_age_begins_at_the_scheduled_time(store, stores, stored):
    """A scheduled operation waits from its scheduled time on, and not from its create."""
    operation = await factories.create(store)
    stored.execute(
        sa.update(operations)
        .where(operations.c.id == operation.id)
        .values(create_time=TEN_EARLIER, schedule_time=EARLY)
    )
    found = await load(stores)
    assert lasted(found[factories.FUNCTION].oldest_pending_age, MINUTE)


async def test_age_begins_at_the_end_of_the_last_attempt(store, stores, engine):
    """An old operation that a worker has just released has only just begun to wait."""
    operation = await factories.create(store)
    factories.age(engine, operation.id, HOUR)
    (claimed,) = await stores.work.claim(CLAIM)
    await store.apply(factories.change(Transition.RELEASE, claimed.id, attempt=claimed.attempt))
    found = await load(stores)
    assert found[factories.FUNCTION].active[Status.PENDING] == 1
    assert found[factories.FUNCTION].oldest_pending_age < SLACK


async def test_overdue_webhook(store, stores, stored):
    """The oldest pending delivery is overdue since its time; settled and later ones are not."""
    found = [await factories.reach(store, Status.COMPLETED) for _ in range(3)]
    stored.execute(sa.update(deliveries).values(create_time=TEN_EARLIER))
    changes: list[dict[str, Any]] = [
        {"next_attempt_time": EARLY},
        {"next_attempt_time": factories.FAR_AWAY},
        {"next_attempt_time": TEN_EARLIER, "status": "DELIVERED", "settle_time": clock()},
    ]
    for operation, values in zip(found, changes, strict=True):
        of_operation = deliveries.c.operation_id == operation.id
        stored.execute(sa.update(deliveries).where(of_operation).values(values))
    workload = await stores.workload.workload(10, 10)
    assert lasted(workload.webhook_overdue, MINUTE)
