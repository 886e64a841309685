"""The quota of active operations: exact on each database, also with concurrent creates."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.errors import QuotaExceeded, RequestIdReused
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.transitions import Transition, TransitionResult
from milepost.storage.tables import operations, quotas
from tests import factories
from tests.contract.stored import answers
from tests.contract.test_batching import held_batch
from tests.contract.test_records import block_event

QUOTA = 10
ENDS = (Transition.CANCEL, Transition.FAIL, Transition.COMPLETE)


async def create(store, **overrides):
    """Create an operation of an owner whose quota is `QUOTA`."""
    overrides = {"quota": QUOTA, **overrides}
    return await store.insert(new_operation_id(), factories.new_operation(**overrides))


async def fill(store, count=QUOTA, **overrides):
    """Create as many operations as the quota allows."""
    return [(await create(store, **overrides)).operation for _ in range(count)]


async def test_one_too_many_is_refused(store, stored):
    """A create beyond the quota fails with the active count and the quota."""
    await fill(store)
    with pytest.raises(QuotaExceeded) as caught:
        await create(store)
    assert (caught.value.active, caught.value.quota) == (QUOTA, QUOTA)
    assert stored.count() == QUOTA


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_makes_room(store, end):
    """The end of an active operation allows exactly one more create."""
    first, *_ = await fill(store)
    if end is Transition.COMPLETE:
        await store.apply(factories.change(Transition.START, first.id))
    await store.apply(factories.change(end, first.id))
    assert isinstance(await create(store), TransitionResult)
    with pytest.raises(QuotaExceeded):
        await create(store)


async def test_pending_and_processing_count(store):
    """Pending and processing operations count as active."""
    for operation in (await fill(store))[: QUOTA // 2]:
        await store.apply(factories.change(Transition.START, operation.id))
    with pytest.raises(QuotaExceeded):
        await create(store)


async def test_expired_ones_do_not_count(store, engine):
    """An expired pending operation does not count as active before its purge."""
    first, second, *_ = await fill(store, ttl=timedelta(minutes=1))
    await store.apply(factories.change(Transition.START, second.id))
    for operation in (first, second):
        factories.age(engine, operation.id, timedelta(hours=1))
    assert isinstance(await create(store), TransitionResult)
    with pytest.raises(QuotaExceeded):  # the second is still processing
        await create(store)


async def test_owners_do_not_share(store):
    """The quota of one owner does not limit other owners."""
    await fill(store)
    assert isinstance(await create(store, owner="bob"), TransitionResult)


async def test_replays_work_at_the_limit(store, stored):
    """A retried create succeeds at the limit, and uses no quota."""
    new_operations = [f"r-{n}" for n in range(QUOTA)]
    created = [(await create(store, request_id=each)).operation for each in new_operations]
    for _ in range(3):
        found = await answers(*(create(store, request_id=each) for each in new_operations))
        assert [(each.operation.id, each.replayed) for each in found] == [
            (operation.id, True) for operation in created
        ]
    with pytest.raises(RequestIdReused):
        await create(store, request_id="r-0", fingerprint="other")
    with pytest.raises(QuotaExceeded):
        await create(store, request_id="r-new")
    await store.apply(factories.change(Transition.CANCEL, created[0].id))
    assert not (await create(store, request_id="r-new")).replayed
    assert stored.count() == QUOTA + 1


async def test_request_id_of_an_expired_one_takes_a_place(store, engine):
    """A create with the request_id of an expired operation counts against the quota."""
    old = (await create(store, request_id="r-1", ttl=timedelta(minutes=1))).operation
    factories.age(engine, old.id, timedelta(hours=1))
    await fill(store, QUOTA - 1)
    again = await create(store, request_id="r-1")
    assert again.operation.id != old.id
    with pytest.raises(QuotaExceeded):
        await create(store)


@pytest.mark.parametrize("quota", [0, 3])
async def test_lowered_quota(store, quota):
    """A lowered quota keeps existing operations, and refuses creates."""
    await fill(store)
    with pytest.raises(QuotaExceeded) as caught:
        await create(store, quota=quota)
    assert (caught.value.active, caught.value.quota) == (QUOTA, quota)


async def test_raised_quota(store):
    """A raised quota allows as many creates as it was raised by."""
    await fill(store)
    found = await answers(*(create(store, quota=QUOTA + 5) for _ in range(20)))
    assert sum(isinstance(each, TransitionResult) for each in found) == 5


async def test_what_was_there_before_quotas_counts(store, stored):
    """Active operations of a release without quotas count at the first create."""
    rows = [factories.row(Status.PENDING) for _ in range(QUOTA - 1)]
    stored.execute(sa.insert(operations), rows)
    assert isinstance(await create(store), TransitionResult)
    with pytest.raises(QuotaExceeded):
        await create(store)


async def test_one_batch_never_exceeds(store, stored):
    """Of many creates in one batch, exactly as many succeed as the quota allows."""
    await fill(store, 4)
    async with held_batch(store, stored) as batch:
        for n in range(50):
            batch.add(create(store, request_id=f"r-{n}" if n % 2 else None))
        for _ in range(5):
            batch.add(create(store, owner="bob"))
    found = await batch.answers()
    alice, bob = found[:50], found[50:]
    # One more is active: the operation that holds the batch.
    assert sum(isinstance(each, TransitionResult) for each in alice) == QUOTA - 5
    assert {type(each) for each in alice} == {TransitionResult, QuotaExceeded}
    assert {type(each) for each in bob} == {TransitionResult}


async def test_many_at_once_over_two_replicas(store, replica, stored):
    """Of concurrent creates on two replicas, exactly as many succeed as the quota allows."""
    found = await answers(
        *(create((store, replica)[n % 2]) for n in range(100)),
        *(create((store, replica)[n % 2], owner="bob") for n in range(100)),
    )
    for of_owner in (found[:100], found[100:]):
        assert {type(each) for each in of_owner} == {TransitionResult, QuotaExceeded}
        assert sum(isinstance(each, TransitionResult) for each in of_owner) == QUOTA
    assert stored.count() == 2 * QUOTA


async def test_creates_and_ends_at_once(store, replica, stored):
    """Concurrent creates and cancels never exceed the quota."""

    async def live(each):
        result = await create(each)
        active = stored.active(factories.OWNER)
        await each.apply(factories.change(Transition.CANCEL, result.operation.id))
        return active

    found = await answers(*(live((store, replica)[n % 2]) for n in range(120)))
    counts = [each for each in found if isinstance(each, int)]
    assert len(counts) >= QUOTA
    assert max(counts) <= QUOTA
    assert all(isinstance(each, int | QuotaExceeded) for each in found), found


async def test_a_create_that_the_database_refuses_takes_only_itself(store, stored):
    """A create that the database refuses does not fail the other creates of its batch."""
    await fill(store, QUOTA - 3)
    stored.execute(sa.update(quotas).values(reserved=QUOTA))  # forces a recount
    fresh = [new_operation_id() for _ in range(3)]
    block_event(stored, fresh[1], 1)
    found = await answers(
        *(store.insert(each, factories.new_operation(quota=QUOTA)) for each in fresh)
    )
    assert [isinstance(each, TransitionResult) for each in found] == [True, False, True]
    assert not isinstance(found[1], QuotaExceeded)
    assert stored.active(factories.OWNER) == QUOTA - 1


async def test_leaked_reservations_are_repaired(store, stored):
    """A recount frees the reservations of creates that failed."""
    taken = (await create(store)).operation.id
    for _ in range(3 * QUOTA):  # an id that is taken
        assert await store.insert(taken, factories.new_operation(quota=QUOTA)) is None
    found = await answers(*(create(store) for _ in range(QUOTA)))
    assert sum(isinstance(each, TransitionResult) for each in found) == QUOTA - 1
    assert stored.active(factories.OWNER) == QUOTA
