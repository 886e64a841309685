"""Claims that wait for work: notifications, polls, limits and ends."""

import asyncio
import dataclasses
from datetime import timedelta

import pytest

from milepost.domain.claim import ClaimRequest
from milepost.domain.errors import Draining, Overloaded, PermissionDenied
from milepost.domain.limits import Limits
from milepost.domain.operation import Principal, Role
from milepost.domain.transitions import Transition
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from milepost.tracking import claimer
from milepost.tracking.claimer import Claimer, PendingWork
from milepost.tracking.committer import Committer
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.waiting_work import WaitingWork
from tests import factories
from tests.waiting import until

WALLY = Principal(
    subject="wally", roles=frozenset({Role.WORKER}), credential_id="w", functions=("video.*", "a")
)
VIDEO = (factories.FUNCTION,)


@pytest.fixture
async def batchers(sqlite_url):
    """The batchers of a fresh database."""
    batchers = Batchers(open_engine(sqlite_url))
    yield batchers
    await batchers.close()


@pytest.fixture
def stores(batchers):
    """The stores over it."""
    return Stores(batchers)


@pytest.fixture
def store(stores):
    """The store of operations."""
    return stores.operations


@pytest.fixture
def work(stores):
    """The claims that wait for work."""
    return PendingWork(stores.work)


@pytest.fixture
def subscriptions():
    """The subscriptions to changes."""
    return Subscriptions()


@pytest.fixture
def committer(store, subscriptions, work):
    """The committer of the replica."""
    return Committer(store, subscriptions, work)


@pytest.fixture
def claims(stores, work, committer):
    """A claimer with the usual limits."""
    return Claimer(stores.work, committer, limits=Limits(), work=work)


async def waiting(claims, work, count=1, **wishes):
    """Claims that wait for work."""
    tasks = [asyncio.create_task(claims.claim(WALLY, VIDEO, **wishes)) for _ in range(count)]
    await until(lambda: len(work._waiters) == count)
    return tasks


async def test_notification_ends_a_wait(store, work, claims, subscriptions):
    """New work wakes a waiting claim, and the claim notifies subscribers."""
    (task,) = await waiting(claims, work)
    operation = await factories.create(store)
    with subscriptions.subscribed(operation.id) as subscriber:
        work.publish(operation.function)
        (claimed,) = await task
        assert await subscriber.wait(5)
    assert (claimed.id, claimed.worker) == (operation.id, "wally")


async def test_work_of_another_replica_is_found_by_a_poll(store, work, claims):
    """Without a notification, one poll of the database wakes the claims that have work."""
    (task,) = await waiting(claims, work)
    operation = await factories.create(store)
    await work.poll()
    assert [claimed.id for claimed in await task] == [operation.id]


async def held_by_another(stores):
    """Return an operation that a worker has claimed."""
    await factories.create(stores.operations)
    request = ClaimRequest(
        functions=VIDEO,
        max_operations=1,
        max_bytes=factories.PLENTY,
        lease=timedelta(minutes=1),
        actor="w",
        worker="w",
    )
    (claimed,) = await stores.work.claim(request)
    return claimed


async def test_delayed_work_is_found_when_it_falls_due(store, stores, work, claims):
    """Work that was released with a delay wakes a waiting claim within 100 ms of falling due."""
    claimed = await held_by_another(stores)
    delay = timedelta(milliseconds=700)
    waking = asyncio.create_task(WaitingWork(stores.work, work).run())
    (task,) = await waiting(claims, work)
    released = await store.apply(factories.change(Transition.RELEASE, claimed.id, delay=delay))
    work.add(released.operation)
    (again,) = await asyncio.wait_for(task, 5)
    waking.cancel()
    due = released.operation.next_attempt_time
    assert again.id == claimed.id
    assert due <= again.start_time < due + timedelta(milliseconds=100)


async def test_work_that_another_replica_delayed_is_found(store, stores, work, claims):
    """Work that falls due unannounced wakes a waiting claim within a second."""
    claimed = await held_by_another(stores)
    waking = asyncio.create_task(WaitingWork(stores.work, work).run())
    (task,) = await waiting(claims, work)
    delay = timedelta(milliseconds=300)
    released = await store.apply(factories.change(Transition.RELEASE, claimed.id, delay=delay))
    (again,) = await asyncio.wait_for(task, 5)
    waking.cancel()
    due = released.operation.next_attempt_time
    assert again.id == claimed.id
    assert due <= again.start_time < due + timedelta(seconds=1.2)


async def test_no_poll_without_a_waiting_claim(batchers, work):
    """Without a waiting claim, a poll does not ask the database."""
    await batchers.close()
    await work.poll()


async def test_one_notification_wakes_as_many_claims_as_there_is_work(store, work, claims):
    """A claim that finds work wakes the next one, until there is no more."""
    tasks = await waiting(claims, work, count=5)
    created = {(await factories.create(store)).id for _ in range(3)}
    work.publish(factories.FUNCTION)
    await until(lambda: sum(task.done() for task in tasks) == 3)
    assert {operation.id for task in tasks if task.done() for operation in task.result()} == created
    work.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_cancelled_claim_passes_its_notification_on(store, work, claims):
    """A notification of a claim that is cancelled at the same moment reaches another one."""
    first, second = await waiting(claims, work, count=2)
    operation = await factories.create(store)
    work.publish(factories.FUNCTION)
    first.cancel()
    found = await asyncio.wait_for(second, 5)
    assert first.cancelled()
    assert [claimed.id for claimed in found] == [operation.id]
    assert not work._waiters
    assert not work._by_function


async def test_work_of_other_functions_wakes_no_claim(work, claims):
    """Work of a function that no claim waits for changes nothing."""
    (task,) = await waiting(claims, work, timeout=timedelta(milliseconds=50))
    work.publish("audio.cut")
    assert await task == []


@pytest.mark.parametrize(
    "wishes",
    [{"timeout": timedelta()}, {"timeout": timedelta(seconds=-1)}, {"time_left": 0.1}],
    ids=["no timeout", "negative timeout", "deadline"],
)
async def test_claim_without_time_to_wait(claims, wishes):
    """A claim without a wait time is answered at once."""
    async with asyncio.timeout(5):
        assert await claims.claim(WALLY, VIDEO, **wishes) == []


async def test_wait_is_limited(stores, work, committer):
    """The operator's limit ends a wait, whatever the claim requests."""
    limits = dataclasses.replace(Limits(), claim_wait=timedelta(milliseconds=20))
    claims = Claimer(stores.work, committer, limits=limits, work=work)
    async with asyncio.timeout(5):
        assert await claims.claim(WALLY, VIDEO, timeout=timedelta(hours=1), time_left=60.0) == []
        assert await claims.claim(WALLY, VIDEO) == []


async def test_too_many_waiting_claims(monkeypatch, work, claims):
    """More claims than may wait are refused at once, and those that wait go on."""
    monkeypatch.setattr(claimer, "MAX_WAITING_CLAIMS", 2)
    tasks = await waiting(claims, work, count=2)
    with pytest.raises(Overloaded):
        await claims.claim(WALLY, VIDEO)
    work.close()
    assert {type(end) for end in await asyncio.gather(*tasks, return_exceptions=True)} == {Draining}


async def test_stopping_replica_ends_waits(work, claims):
    """A stopping replica ends waiting claims with Draining, and later ones too."""
    (task,) = await waiting(claims, work)
    work.close()
    with pytest.raises(Draining):
        await task
    with pytest.raises(Draining):
        await claims.claim(WALLY, VIDEO)


@pytest.mark.parametrize("function", ["videox", "audio.cut", "ab", ""])
async def test_function_that_is_not_granted(claims, function):
    """A claim with one function that is not granted is refused; the error names it."""
    with pytest.raises(PermissionDenied) as caught:
        await claims.claim(WALLY, ("video.cut", function))
    assert caught.value.facts == {"role": "WORKER", "function": function}


async def test_grants_are_for_workers_only(claims):
    """A principal without the role WORKER may not claim, whatever functions it is granted."""
    owner = dataclasses.replace(WALLY, roles=frozenset({Role.CALLER}))
    with pytest.raises(PermissionDenied):
        await claims.claim(owner, VIDEO)
