"""Creating: once per request_id and owner, under an id of its own."""

from datetime import UTC, datetime, timedelta

import pytest

from milepost.domain.errors import OperationNotFound, RequestIdReused
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.transitions import Transition
from tests import factories
from tests.contract.stored import answers

TTL = timedelta(hours=1)


async def test_create_stores_the_draft(store, stored):
    """A create stores what was asked for, pending and at revision 1, exactly once."""
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
    outcome = await store.insert(operation_id, new_operation)
    assert not outcome.replayed
    operation = outcome.operation
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
    """What a create leaves out is absent, not empty and not 0."""
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
    """The same owner and request_id get the same operation, finished or not."""
    first = await factories.reach(store, status, request_id="r-1")
    before = stored.everything(first.id)
    again = await store.insert(new_operation_id(), factories.new_operation(request_id="r-1"))
    assert again.replayed
    assert again.operation == first
    assert stored.everything(first.id) == before
    assert stored.count() == 1


async def test_request_id_is_for_one_content(store, stored):
    """The same request_id with other content is refused, and nothing is stored."""
    await factories.create(store, request_id="r-1")
    with pytest.raises(RequestIdReused) as caught:
        await factories.create(store, request_id="r-1", fingerprint="something else")
    assert caught.value.facts == {"request_id": "r-1"}
    assert stored.count() == 1


async def test_request_ids_belong_to_owners(store):
    """Another owner with the same request_id gets an operation of its own."""
    mine = await factories.create(store, request_id="r-1")
    theirs = await factories.create(store, request_id="r-1", owner="bob")
    assert mine.id != theirs.id
    with pytest.raises(OperationNotFound):
        await store.get(mine.id, factories.access_filter("bob"))


async def test_creates_without_request_id_are_their_own(store):
    """Two equal creates without a request_id make two operations."""
    assert (await factories.create(store)).id != (await factories.create(store)).id


@pytest.mark.parametrize("status", [Status.PENDING, Status.COMPLETED])
async def test_request_id_is_free_after_expiry(store, engine, stored, status):
    """A request_id lives as long as its operation: one that expired unswept gives way."""
    first = await factories.reach(store, status, request_id="r-1", ttl=TTL)
    factories.age(engine, first.id, 2 * TTL)
    second = await factories.create(store, request_id="r-1", fingerprint="something else")
    assert second.id != first.id
    assert stored.operation(first.id) is None
    last = stored.events(first.id)[-1]
    assert (last["type"], last["revision"]) == ("operation.expired", first.revision + 1)
    # Of what has ended its owner was told before.
    told = "operation.expired" if status is Status.PENDING else "operation.completed"
    assert stored.deliveries(first.id)[-1]["type"] == told
    assert [event["type"] for event in stored.events(second.id)] == ["operation.created"]


async def test_request_id_is_kept_while_processing(store, engine):
    """An operation that is still worked on keeps its request_id beyond its time."""
    first = await factories.reach(store, Status.PROCESSING, request_id="r-1", ttl=TTL)
    factories.age(engine, first.id, 2 * TTL)
    again = await store.insert(new_operation_id(), factories.new_operation(request_id="r-1"))
    assert again.replayed
    assert again.operation.id == first.id


async def test_request_id_is_free_after_delete(store):
    """A request_id lives as long as its operation: one that was deleted gives way."""
    first = await factories.reach(store, Status.COMPLETED, request_id="r-1")
    await store.delete(factories.change(Transition.PURGE, first.id))
    second = await factories.create(store, request_id="r-1")
    assert second.id != first.id


@pytest.mark.parametrize("request_id", [None, "r-1"])
@pytest.mark.parametrize("owner", [factories.OWNER, "bob"])
async def test_taken_id_stores_nothing(store, stored, owner, request_id):
    """A create under an id that is taken answers nothing, and changes nothing."""
    taken = await factories.create(store)
    before = stored.everything(taken.id)
    new_operation = factories.new_operation(owner=owner, request_id=request_id)
    assert await store.insert(taken.id, new_operation) is None
    assert stored.everything(taken.id) == before
    assert stored.count() == 1


async def test_one_id_for_two_creates_at_once(store, stored):
    """Of creates at once under the same id one gets it, and the others nothing."""
    operation_id = new_operation_id()
    new_operations = [
        factories.new_operation(owner=f"o-{n}", request_id="r") for n in (3, 5, 1, 4, 0, 2)
    ]
    outcomes = await answers(
        *(store.insert(operation_id, new_operation) for new_operation in new_operations)
    )
    winners = [n for n, outcome in enumerate(outcomes) if outcome is not None]
    assert len(winners) == 1
    winner = new_operations[winners[0]].owner
    assert stored.operation(operation_id)["owner"] == winner
    assert outcomes[winners[0]].operation.owner == winner
    assert [event["actor"] for event in stored.events(operation_id)] == [winner]


async def test_duplicates_at_once(store, replica, stored):
    """Of equal creates at once, on two replicas, one creates and the others show it."""
    new_operation = factories.new_operation(request_id="r-1")
    outcomes = await answers(
        *(
            each.insert(new_operation_id(), new_operation)
            for _ in range(10)
            for each in (store, replica)
        )
    )
    assert [outcome.replayed for outcome in outcomes].count(False) == 1
    assert len({outcome.operation.id for outcome in outcomes}) == 1
    assert stored.count() == 1
    assert len(stored.events(outcomes[0].operation.id)) == 1


async def test_heirs_of_an_expired_request_at_once(store, replica, engine, stored):
    """Of equal creates at once after an expired one, one creates; nobody is refused."""
    first = await factories.create(store, request_id="r-1", ttl=TTL)
    factories.age(engine, first.id, 2 * TTL)
    new_operation = factories.new_operation(request_id="r-1")

    async def insert(each):
        # As a caller does: another id when this one led nowhere.
        while (outcome := await each.insert(new_operation_id(), new_operation)) is None:
            pass
        return outcome

    outcomes = await answers(*(insert(each) for _ in range(5) for each in (store, replica)))
    assert [outcome.replayed for outcome in outcomes].count(False) == 1
    assert stored.count() == 1
    assert len([e for e in stored.events(first.id) if e["type"] == "operation.expired"]) == 1
