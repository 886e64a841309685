"""Creates: one operation per owner and request_id."""

from datetime import UTC, datetime, timedelta

import pytest

from milepost.domain.errors import OperationNotFound, RequestIdReused
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.transitions import Transition
from tests import factories
from tests.contract.stored import answers

TTL = timedelta(hours=1)


async def test_create_stores_the_draft(store, stored):
    """A create stores the requested fields as a pending operation at revision 1."""
    new_operation = factories.new_operation(
        version="2",
        metadata='{"a":1}',
        original_request_id="order 17",
        ttl=TTL,
        retry_after=timedelta(seconds=10),
        max_attempts=5,
        trace_context="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    operation_id = new_operation_id()
    result = await store.insert(operation_id, new_operation)
    assert not result.replayed
    operation = result.operation
    assert operation == await store.get(operation_id, factories.access_filter())
    assert (operation.id, operation.status, operation.revision) == (operation_id, "PENDING", 1)
    for name in (
        "owner",
        "function",
        "version",
        "metadata",
        "original_request_id",
        "callback_url",
        "ttl",
        "retry_after",
        "max_attempts",
        "trace_context",
    ):
        assert getattr(operation, name) == getattr(new_operation, name), name
    assert operation.expire_time == operation.create_time + TTL
    assert abs(operation.create_time - datetime.now(UTC)) < timedelta(seconds=10)
    assert operation.attempt == 0
    assert stored.count() == 1


async def test_what_nobody_gave_is_absent(store):
    """Fields that a create leaves out are absent, not empty and not 0."""
    operation = await factories.create(store, callback_url=None)
    for name in (
        "version",
        "progress",
        "progress_message",
        "progress_time",
        "result",
        "metadata",
        "original_request_id",
        "callback_url",
        "start_time",
        "complete_time",
        "cancel_time",
        "worker",
        "lease_expire_time",
        "trace_context",
    ):
        assert getattr(operation, name) is None, name
    assert operation.errors == ()


@pytest.mark.parametrize("status", Status)
async def test_repeated_create_shows_the_operation_as_it_stands(store, stored, status):
    """A retried create returns the operation as it is now."""
    first = await factories.reach(store, status, request_id="r-1")
    before = stored.everything(first.id)
    again = await store.insert(new_operation_id(), factories.new_operation(request_id="r-1"))
    assert again.replayed
    assert again.operation == first
    assert stored.everything(first.id) == before
    assert stored.count() == 1


async def test_request_id_is_for_one_content(store, stored):
    """A reused request_id with other content is refused, and nothing is stored."""
    await factories.create(store, request_id="r-1")
    with pytest.raises(RequestIdReused) as caught:
        await factories.create(store, request_id="r-1", fingerprint="something else")
    assert caught.value.facts == {"request_id": "r-1"}
    assert stored.count() == 1


async def test_request_ids_belong_to_owners(store):
    """The same request_id of another owner creates another operation."""
    mine = await factories.create(store, request_id="r-1")
    theirs = await factories.create(store, request_id="r-1", owner="bob")
    assert mine.id != theirs.id
    with pytest.raises(OperationNotFound):
        await store.get(mine.id, factories.access_filter("bob"))


async def test_creates_without_request_id_are_their_own(store):
    """Two equal creates without a request_id create two operations."""
    assert (await factories.create(store)).id != (await factories.create(store)).id


@pytest.mark.parametrize("status", [Status.PENDING, Status.COMPLETED])
async def test_request_id_is_free_after_expiry(store, engine, stored, status):
    """The request_id of an expired operation is free, also before the purge."""
    first = await factories.reach(store, status, request_id="r-1", ttl=TTL)
    factories.age(engine, first.id, 2 * TTL)
    second = await factories.create(store, request_id="r-1", fingerprint="something else")
    assert second.id != first.id
    assert stored.operation(first.id) is None
    last = stored.events(first.id)[-1]
    assert (last["type"], last["revision"]) == ("operation.expired", first.revision + 1)
    # A terminal operation had its webhook before.
    expected = "operation.expired" if status is Status.PENDING else "operation.completed"
    assert stored.deliveries(first.id)[-1]["type"] == expected
    assert [event["type"] for event in stored.events(second.id)] == ["operation.created"]


async def test_request_id_is_kept_while_processing(store, engine):
    """A processing operation keeps its request_id past its expire_time."""
    first = await factories.reach(store, Status.PROCESSING, request_id="r-1", ttl=TTL)
    factories.age(engine, first.id, 2 * TTL)
    again = await store.insert(new_operation_id(), factories.new_operation(request_id="r-1"))
    assert again.replayed
    assert again.operation.id == first.id


async def test_request_id_is_free_after_delete(store):
    """The request_id of a deleted operation is free."""
    first = await factories.reach(store, Status.COMPLETED, request_id="r-1")
    await store.delete(factories.change(Transition.PURGE, first.id))
    second = await factories.create(store, request_id="r-1")
    assert second.id != first.id


@pytest.mark.parametrize("request_id", [None, "r-1"])
@pytest.mark.parametrize("owner", [factories.OWNER, "bob"])
async def test_taken_id_stores_nothing(store, stored, owner, request_id):
    """A create under a taken id returns None, and changes nothing."""
    taken = await factories.create(store)
    before = stored.everything(taken.id)
    new_operation = factories.new_operation(owner=owner, request_id=request_id)
    assert await store.insert(taken.id, new_operation) is None
    assert stored.everything(taken.id) == before
    assert stored.count() == 1


async def test_one_id_for_two_creates_at_once(store, stored):
    """Of concurrent creates under the same id, one succeeds and the others return None."""
    operation_id = new_operation_id()
    new_operations = [
        factories.new_operation(owner=f"o-{n}", request_id="r") for n in (3, 5, 1, 4, 0, 2)
    ]
    results = await answers(
        *(store.insert(operation_id, new_operation) for new_operation in new_operations)
    )
    winners = [n for n, result in enumerate(results) if result is not None]
    assert len(winners) == 1
    winner = new_operations[winners[0]].owner
    assert stored.operation(operation_id)["owner"] == winner
    assert results[winners[0]].operation.owner == winner
    assert [event["actor"] for event in stored.events(operation_id)] == [winner]


async def test_duplicates_at_once(store, replica, stored):
    """Of equal concurrent creates on two replicas, one creates and the others are replayed."""
    new_operation = factories.new_operation(request_id="r-1")
    results = await answers(
        *(
            each.insert(new_operation_id(), new_operation)
            for _ in range(10)
            for each in (store, replica)
        )
    )
    assert [result.replayed for result in results].count(False) == 1
    assert len({result.operation.id for result in results}) == 1
    assert stored.count() == 1
    assert len(stored.events(results[0].operation.id)) == 1


async def test_heirs_of_an_expired_request_at_once(store, replica, engine, stored):
    """Of concurrent creates after an expired one with their request_id, one creates, none fails."""
    first = await factories.create(store, request_id="r-1", ttl=TTL)
    factories.age(engine, first.id, 2 * TTL)
    new_operation = factories.new_operation(request_id="r-1")

    async def insert(each):
        # As the tracker does: another id after None.
        while (result := await each.insert(new_operation_id(), new_operation)) is None:
            pass
        return result

    results = await answers(*(insert(each) for _ in range(5) for each in (store, replica)))
    assert [result.replayed for result in results].count(False) == 1
    assert stored.count() == 1
    assert len([e for e in stored.events(first.id) if e["type"] == "operation.expired"]) == 1
