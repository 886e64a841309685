"""Changes whose callers give up while they are committed: nobody waits, and all others see them."""

import asyncio
import contextlib
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost import telemetry
from milepost.domain.errors import StoreUnavailable
from milepost.domain.limits import Limits
from milepost.domain.operation import CreateRequest, Principal, Role, Status
from milepost.domain.transitions import Preconditions, Transition
from milepost.storage.tables import operations, quotas
from milepost.tracking.claimer import Claimer, PendingWork
from milepost.tracking.committer import Committer, transition_request
from milepost.tracking.page_tokens import PageTokens
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.tracker import Tracker
from tests import factories
from tests.waiting import until

WALLY = Principal(
    subject="wally", roles=frozenset({Role.WORKER}), credential_id="w", functions=("video.*",)
)
ALICE = Principal(subject=factories.OWNER, roles=frozenset({Role.CALLER}), credential_id="a")


class Replica:
    """The use cases of a replica, over a database whose rows can be locked."""

    def __init__(self, stores, batchers, stored):
        self.subscriptions = Subscriptions()
        self.work = PendingWork(stores.work)
        self.store = stores.operations
        self.committer = Committer(self.store, self.subscriptions, self.work)
        self.tracker = Tracker(
            self.store,
            self.committer,
            limits=Limits(),
            page_tokens=PageTokens(b"k" * 32),
            work=self.work,
        )
        self.claimer = Claimer(stores.work, self.committer, limits=Limits(), work=self.work)
        self.batchers = batchers
        self.stored = stored

    async def claim(self, wait=timedelta()):
        """Claim up to three operations."""
        return await self.claimer.claim(
            WALLY, (factories.FUNCTION,), max_operations=3, timeout=wait
        )

    async def give_up(self, call, held):
        """Start the call, and cancel it while its transaction waits for what is held."""
        with held:
            task = asyncio.create_task(call)
            await until(lambda: bool(self.batchers.writes._running))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @contextlib.contextmanager
    def held_quota(self):
        """Lock the quota of `OWNER`; on SQLite, the whole database."""
        query = sa.select(quotas.c.owner).where(quotas.c.owner == factories.OWNER)
        with self.stored.engine.begin() as connection:
            connection.execute(query.with_for_update())
            yield


@pytest.fixture
def replica(stores, batchers, stored):
    """A replica."""
    return Replica(stores, batchers, stored)


async def line_of(lines):
    """Return the only line of the log, once it is written."""
    found = []

    def is_written():
        found.extend(lines())
        return bool(found)

    await until(is_written)
    (line,) = found
    return line


def counted(transition):
    """Return the number of counted transitions."""
    return telemetry.registry.get_sample_value(
        "milepost_transitions_total", {"transition": str(transition)}
    )


@pytest.mark.parametrize("transition", [Transition.CANCEL, Transition.PURGE])
async def test_change_of_a_caller_that_has_gone_is_announced(replica, lines, transition):
    """A change that is committed for a cancelled caller is published, counted and logged."""
    status = Status.PENDING if transition is Transition.CANCEL else Status.COMPLETED
    operation = await factories.reach(replica.store, status)
    request = transition_request(ALICE, transition, operation.id, Preconditions())
    committer = replica.committer
    call = committer.commit if transition is Transition.CANCEL else committer.delete
    before = counted(transition)
    with replica.subscriptions.subscribed(operation.id) as subscriber:
        await replica.give_up(call(ALICE, request), replica.stored.held(operation.id))
        assert await subscriber.wait(5)
    assert counted(transition) == before + 1
    line = await line_of(lines)
    assert (line["event"], line["transition"]) == ("operation changed", str(transition))
    assert (line["operation_id"], line["principal"]) == (operation.id, ALICE.subject)


async def test_change_of_a_caller_that_waited_too_long_is_announced(replica, lines, monkeypatch):
    """A change that is committed after its caller got STORE_UNAVAILABLE is announced likewise."""
    operation = await factories.create(replica.store)
    request = transition_request(ALICE, Transition.CANCEL, operation.id, Preconditions())
    monkeypatch.setattr(replica.batchers.writes, "_queue_timeout", 0.5)
    # The statement is not aborted, as if the abort came when it was already done.
    monkeypatch.setattr(replica.batchers.writes._session, "abort", lambda: None)
    with replica.subscriptions.subscribed(operation.id) as subscriber:
        with replica.stored.held(operation.id), pytest.raises(StoreUnavailable):
            await replica.committer.commit(ALICE, request)
        assert await subscriber.wait(5)
    assert (await line_of(lines))["operation_id"] == operation.id


async def test_refused_change_of_a_caller_that_has_gone_is_not_announced(replica, lines):
    """What was not committed is not announced."""
    operation = await factories.reach(replica.store, Status.COMPLETED)
    request = transition_request(ALICE, Transition.CANCEL, operation.id, Preconditions())
    call = replica.committer.commit(ALICE, request)
    with replica.subscriptions.subscribed(operation.id) as subscriber:
        await replica.give_up(call, replica.stored.held(operation.id))
        await until(lambda: not replica.batchers.writes._running)
        assert not await subscriber.wait(0)
    other = await factories.create(replica.store)
    await replica.tracker.cancel(ALICE, other.id, Preconditions())
    assert (await line_of(lines))["operation_id"] == other.id


async def test_create_of_a_caller_that_has_gone_is_announced(replica, lines):
    """An operation that is created for a cancelled caller is logged, and offered to workers."""
    await factories.create(replica.store)
    create = replica.tracker.create(ALICE, CreateRequest(function=factories.FUNCTION))
    with replica.work.subscribed([factories.FUNCTION]) as waiter:
        await replica.give_up(create, replica.held_quota())
        await waiter.wait(5)
        assert waiter.is_notified
    line = await line_of(lines)
    assert (line["transition"], line["principal"]) == ("create", ALICE.subject)


@contextlib.contextmanager
def held_events(engine):
    """Hold up every write of an event; on SQLite, every write."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE"))
        else:
            connection.execute(sa.select(operations.c.id).with_for_update())
        yield


@pytest.mark.parametrize("when", ["running", "settled"])
async def test_claim_of_a_caller_that_has_gone_is_given_back(replica, when):
    """Operations claimed for a cancelled caller are pending again, and no attempt is used."""
    created = [await factories.create(replica.store, max_attempts=1) for _ in range(3)]
    claims = replica.batchers.claims
    with held_events(replica.stored.engine):
        task = asyncio.create_task(replica.claim())
        await until(lambda: bool(claims._running))
        if when == "running":
            task.cancel()
    if when == "settled":
        await until(lambda: not claims._running, every_turn=True)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not replica.claimer._releases and not claims._running)
    rows = [replica.stored.operation(operation.id) for operation in created]
    assert [(row["status"], row["attempt"], row["failed_attempts"]) for row in rows] == [
        ("PENDING", 1, 0)
    ] * 3
    events = replica.stored.events(created[0].id)
    assert [event["transition"] for event in events[-2:]] == ["claim", "release"]
    assert [event["actor"] for event in events[-2:]] == ["wally"] * 2
    again = await replica.claim()
    assert [(operation.attempt, operation.failed_attempts) for operation in again] == [(2, 0)] * 3


async def test_claim_that_was_given_back_wakes_another(replica):
    """A claim that waits gets the operations that were claimed for a cancelled caller."""
    wait, claims = timedelta(seconds=30), replica.batchers.claims
    gone, waiting = (asyncio.create_task(replica.claim(wait)) for _ in range(2))
    await until(lambda: len(replica.work._waiters) == 2)
    await until(lambda: not claims._running and not claims._waiting)
    operation = await factories.create(replica.store)
    with held_events(replica.stored.engine):
        replica.work.publish(operation.function)  # to the one that came first
        await until(lambda: bool(claims._running))
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
    (claimed,) = await asyncio.wait_for(waiting, 10)
    assert (claimed.id, claimed.attempt) == (operation.id, 2)


async def test_operation_that_went_on_is_not_given_back(replica):
    """What a caller changed in the meantime is not released for a claim that was lost."""
    operation = await factories.create(replica.store)
    (claimed,) = await replica.claim()
    progress = transition_request(WALLY, Transition.PROGRESS, operation.id, Preconditions())
    await replica.committer.commit(WALLY, progress)
    replica.claimer._give_back(WALLY, 0, [claimed])
    await until(lambda: not replica.claimer._releases)
    assert replica.stored.operation(operation.id)["status"] == "PROCESSING"
