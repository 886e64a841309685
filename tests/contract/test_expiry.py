"""Expiry: an expired operation does not exist, before and after its purge."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.errors import OperationExpired, OperationNotFound
from milepost.domain.operation import Status
from milepost.domain.selection import Selection
from milepost.domain.transitions import Transition
from milepost.storage.dialects import clock, later
from milepost.storage.effects import EFFECTS
from milepost.storage.predicates import unexpired
from milepost.storage.tables import operations
from tests import factories

TTL = timedelta(hours=1)
MARGIN = timedelta(seconds=30)
GONE = [status for status in Status if status is not Status.PROCESSING]


@pytest.mark.parametrize("status", GONE)
async def test_expired_operation_is_gone(store, engine, stored, status):
    """An expired pending or terminal operation cannot be read, listed or changed."""
    operation = await factories.reach(store, status, ttl=TTL)
    factories.age(engine, operation.id, TTL + MARGIN)
    before = stored.everything(operation.id)
    calls = [store.apply(factories.change(transition, operation.id)) for transition in EFFECTS]
    for call in (store.get(operation.id, factories.access_filter()), *calls):
        with pytest.raises(OperationExpired):
            await call
    for asker in (factories.access_filter(), factories.access_filter("admin", everything=True)):
        assert await factories.listed(store, asker, Selection(), None, 50, full=False) == []
    assert stored.everything(operation.id) == before


@pytest.mark.parametrize("status", GONE)
async def test_only_the_owner_is_told_of_expiry(store, engine, status):
    """An expired operation is not found by other owners, workers and admins."""
    operation = await factories.reach(store, status, ttl=TTL)
    factories.age(engine, operation.id, TTL + MARGIN)
    for asker in (
        factories.access_filter(factories.STRANGER),
        factories.access_filter("worker", functions=("*",)),
        factories.access_filter("admin", everything=True),
    ):
        for call in (
            store.get(operation.id, asker),
            store.apply(
                factories.change(
                    Transition.CANCEL, operation.id, access_filter=asker, request_id="r"
                )
            ),
        ):
            with pytest.raises(OperationNotFound) as caught:
                await call
            assert type(caught.value) is OperationNotFound


@pytest.mark.parametrize("status", Status)
async def test_operation_lives_until_its_time(store, engine, status):
    """An operation is accessible until its expire_time."""
    operation = await factories.reach(store, status, ttl=TTL)
    factories.age(engine, operation.id, TTL - MARGIN)
    assert (await store.get(operation.id, factories.access_filter())).id == operation.id
    listed = await factories.listed(
        store, factories.access_filter(), Selection(), None, 50, full=False
    )
    assert [each.id for each in listed] == [operation.id]


async def test_work_outlives_its_time(store, engine):
    """A processing operation stays visible past its expire_time, and can complete."""
    operation = await factories.reach(store, Status.PROCESSING, ttl=TTL)
    factories.age(engine, operation.id, 2 * TTL)
    await store.apply(factories.change(Transition.PROGRESS, operation.id, progress=0.5))
    found = await store.get(operation.id, factories.access_filter())
    assert found.expire_time < found.progress_time
    done = (await store.apply(factories.change(Transition.COMPLETE, operation.id))).operation
    assert done.expire_time == done.complete_time + TTL


@pytest.mark.parametrize(
    ("offset", "exists"),
    [
        (timedelta(microseconds=1), True),
        (timedelta(0), True),
        (timedelta(microseconds=-1), False),
    ],
)
async def test_now_is_not_yet_expired(store, engine, offset, exists):
    """An operation is unexpired at its expire_time, and expired a microsecond later."""
    operation = await factories.create(store)
    # Within one statement the clock of the database is constant.
    expire = (
        sa.update(operations)
        .where(operations.c.id == operation.id)
        .values(
            create_time=factories.LONG_AGO,
            expire_time=later(clock(), sa.literal(offset, operations.c.ttl.type)),
        )
        .returning(unexpired())
    )
    with engine.begin() as connection:
        assert bool(connection.execute(expire).scalar_one()) is exists
