"""Unique keys: one active operation of an owner for each, however many callers create it."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from milepost.domain.errors import UniqueKeyTaken
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.transitions import Transition
from tests import factories

KEY = "nightly report"


async def insert(store, **overrides):
    """Create an operation with the key, and return the result."""
    fields = {"unique_key": KEY, **overrides}
    return await store.insert(new_operation_id(), factories.new_operation(**fields))


async def test_second_create_joins(store, stored):
    """While an operation with the key is active, another create gets that operation."""
    first = await insert(store, request_id="r-1")
    second = await insert(store, request_id="r-2", function="another")
    assert (first.joined, second.joined) == (False, True)
    assert second.operation.id == first.operation.id
    assert stored.count() == 1


async def test_second_create_is_refused_if_it_asks_for_that(store, stored):
    """A create that refuses to join names the operation that has the key."""
    first = await insert(store)
    with pytest.raises(UniqueKeyTaken) as caught:
        await insert(store, refuses_to_join=True)
    assert caught.value.facts == {"unique_key": KEY, "operation_id": first.operation.id}
    assert stored.count() == 1


async def test_same_call_is_replayed_not_joined(store):
    """A repeated call gets its own operation as replayed."""
    await insert(store, request_id="r-1")
    again = await insert(store, request_id="r-1")
    assert (again.replayed, again.joined) == (True, False)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_key_is_free_after_the_end(store, status):
    """The key of an operation that has ended is free again."""
    ended = await factories.reach(store, status, unique_key=KEY)
    created = await insert(store)
    assert not created.joined
    assert created.operation.id != ended.id


async def test_key_stays_taken_through_retries(store):
    """An operation keeps its key while it waits for another attempt."""
    first = await factories.reach(store, Status.PROCESSING, unique_key=KEY)
    await store.apply(factories.change(Transition.RETRY, first.id))
    assert (await insert(store)).joined


async def test_expired_operation_frees_the_key(store, engine, stored):
    """An operation that has expired and is not purged yet does not hold the key."""
    first = await insert(store, ttl=timedelta(hours=1))
    factories.age(engine, first.operation.id, timedelta(hours=2))
    second = await insert(store)
    assert not second.joined
    assert stored.operation(first.operation.id) is None


async def test_keys_of_owners_are_apart(store):
    """Another owner with the same key is not affected."""
    await insert(store)
    other = await insert(store, owner="bob")
    assert not other.joined


async def test_many_callers_create_one(stores, others, stored):
    """Of 16 creates at once over two replicas, round after round, one creates and 15 join."""
    for turn in range(5):
        results = await asyncio.gather(
            *(
                insert((stores, others)[n % 2].operations, request_id=f"{turn}-{n}")
                for n in range(16)
            )
        )
        assert Counter(result.joined for result in results) == {True: 15, False: 1}
        (operation_id,) = {result.operation.id for result in results}
        await stores.operations.apply(factories.change(Transition.CANCEL, operation_id))
    assert stored.count() == 5


async def test_join_needs_no_quota(store):
    """Creates that join another one of the same batch do not count against the quota."""
    results = await asyncio.gather(*(insert(store, request_id=f"r-{n}", quota=1) for n in range(8)))
    assert len({result.operation.id for result in results}) == 1
