"""Waiting and watching over each database: what is seen, in which order, and how often."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.errors import Draining, OperationExpired, OperationNotFound
from milepost.domain.operation import Principal, Role, Status, new_operation_id
from milepost.domain.transitions import Transition
from milepost.storage.tables import events, operations
from milepost.tracking.poller import Poller
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.watcher import PAGE, Watcher
from tests import factories
from tests.waiting import until

ALICE = Principal(
    subject=factories.OWNER, roles=frozenset({Role.CALLER}), credential_id="a", functions=()
)
MALLORY = Principal(
    subject=factories.STRANGER, roles=frozenset({Role.CALLER}), credential_id="m", functions=()
)
LONG_S = 20.0
"""Longer than any test may take: what ends before did not end by the time."""
QUIET_S = 0.02


@pytest.fixture
def subscriptions() -> Subscriptions:
    """Nobody listens yet."""
    return Subscriptions()


@pytest.fixture
def watcher(store, stores, subscriptions) -> Watcher:
    """Waiting on a store whose transitions are published by the test."""
    return Watcher(store, stores.history, subscriptions, longest=LONG_S, keep_alive=LONG_S)


async def moved(store, subscriptions, transition, operation, **overrides):
    """The operation after a transition of which the listeners are told."""
    outcome = await store.apply(factories.change(transition, operation.id, **overrides))
    subscriptions.publish(operation.id)
    return outcome.operation


def have_seen(subscriptions, operation):
    """Whether everybody who listens to the operation has read it, and there is somebody."""
    group = subscriptions.subscribers.get(operation.id, ())
    return bool(group) and all(subscriber.seen for subscriber in group)


async def taken(watch, count):
    """The next items of a watch."""
    async with asyncio.timeout(LONG_S):
        return [await anext(watch) for _ in range(count)]


async def rest(watch):
    """The items of a watch up to its end."""
    async with asyncio.timeout(LONG_S):
        return [item async for item in watch]


async def test_wait_returns_when_it_has_ended(store, subscriptions, watcher):
    """A wait is not ended by progress, but by the end."""
    operation = await factories.reach(store, Status.PROCESSING)
    waiting = asyncio.create_task(watcher.wait(ALICE, operation.id, LONG_S))
    await until(lambda: bool(subscriptions.subscribers))
    await moved(store, subscriptions, Transition.PROGRESS, operation, progress=0.5)
    done = await moved(store, subscriptions, Transition.COMPLETE, operation)
    async with asyncio.timeout(LONG_S / 2):
        assert await waiting == done
    assert not subscriptions.subscribers


@pytest.mark.parametrize("seconds", [0.0, QUIET_S])
async def test_wait_returns_it_as_it_stands_after_its_time(store, watcher, seconds):
    """A wait whose time is up is no error: the operation is answered as it stands."""
    operation = await factories.reach(store, Status.PROCESSING)
    assert await watcher.wait(ALICE, operation.id, seconds) == operation


async def test_no_wait_is_longer_than_the_longest(store, stores, subscriptions):
    """Whatever is asked for, the operator's limit ends the wait."""
    watcher = Watcher(store, stores.history, subscriptions, longest=QUIET_S, keep_alive=LONG_S)
    operation = await factories.create(store)
    async with asyncio.timeout(LONG_S / 2):
        assert await watcher.wait(ALICE, operation.id, 1e9) == operation


async def test_hold_returns_at_the_first_change(store, subscriptions, watcher):
    """A held answer is given at the first change, progress included; without one, in its time."""
    operation = await factories.reach(store, Status.PROCESSING)
    holding = asyncio.create_task(watcher.hold(ALICE, operation.id, LONG_S))
    await until(lambda: have_seen(subscriptions, operation))
    subscriptions.publish(operation.id)  # a hint for nothing
    now = await moved(store, subscriptions, Transition.PROGRESS, operation, progress=0.5)
    async with asyncio.timeout(LONG_S / 2):
        assert await holding == now
    assert await watcher.hold(ALICE, operation.id, QUIET_S) == now


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_nothing_is_waited_for_after_the_end(store, watcher, status):
    """An operation that has ended is answered at once, held or waited for."""
    operation = await factories.reach(store, status)
    async with asyncio.timeout(LONG_S / 2):
        assert await watcher.wait(ALICE, operation.id, LONG_S) == operation
        assert await watcher.hold(ALICE, operation.id, LONG_S) == operation


async def test_watch_begins_with_the_operation_as_it_stands(store, subscriptions, watcher):
    """A watch that knows nothing gets the operation, then each change, and ends with its end."""
    operation = await factories.create(store)
    with watcher.watch(ALICE, operation.id, 0) as watch:
        seen = await taken(watch, 1)
        for transition in (Transition.START, Transition.COMPLETE):
            await moved(store, subscriptions, transition, operation)
            seen += await taken(watch, 1)
        assert await rest(watch) == []
    assert [item.status for item in seen] == ["PENDING", "PROCESSING", "COMPLETED"]
    assert [item.revision for item in seen] == [1, 2, 3]
    assert not subscriptions.subscribers


async def test_slow_reader_misses_progress_and_no_status(store, subscriptions, watcher):
    """Of what happened while nobody read, every change of status is told, of progress the newest.

    A reader that was cut off is told the same: it is only slower.
    """
    operation = await factories.create(store)
    with watcher.watch(ALICE, operation.id, 0) as slow:
        await taken(slow, 1)
        latest = operation
        for progress in (0.1, 0.2, 0.3):  # the first one starts it
            latest = await moved(
                store, subscriptions, Transition.PROGRESS, operation, progress=progress
            )
        seen = await taken(slow, 2)
        await moved(store, subscriptions, Transition.PROGRESS, operation, progress=0.4)
        await moved(store, subscriptions, Transition.COMPLETE, operation)
        seen += await rest(slow)
    assert seen[1] == latest
    assert [(item.revision, item.status) for item in seen] == [
        (2, Status.PROCESSING),
        (4, Status.PROCESSING),
        (6, Status.COMPLETED),
    ]
    with watcher.watch(ALICE, operation.id, 1) as back:
        assert [item.revision for item in await rest(back)] == [2, 6]
    with watcher.watch(ALICE, operation.id, 2) as back:
        assert [item.revision for item in await rest(back)] == [6]
    with watcher.watch(ALICE, operation.id, 6) as back:
        assert await rest(back) == []


async def test_past_status_is_told_as_it_was(store, watcher):
    """An operation that has been started meanwhile is told as it stood: no later fact shows."""
    operation = await factories.reach(store, Status.PROCESSING, metadata='{"a": 1}')
    await store.apply(
        factories.change(Transition.PROGRESS, operation.id, progress=0.7, message="late")
    )
    await store.apply(factories.change(Transition.COMPLETE, operation.id))
    with watcher.watch(ALICE, operation.id, 1) as watch:
        started, completed = await rest(watch)
    assert (started.status, started.revision) == (operation.status, operation.revision)
    assert (started.attempt, started.start_time) == (operation.attempt, operation.start_time)
    assert started.metadata == operation.metadata
    assert (started.progress, started.progress_message, started.result) == (None, None, None)
    assert started.complete_time is None
    assert completed.result == factories.payload()


async def test_work_that_changed_hands_is_told_in_full(store, stored, subscriptions, watcher):
    """Each time that an operation is released and started anew is told, with its attempt.

    Also when there are more changes than are read at once.
    """
    operation = await factories.reach(store, Status.PROCESSING)
    rounds = PAGE  # two changes of status each
    template = stored.events(operation.id)[-1]
    rows = []
    for number in range(rounds):
        released = {
            "transition": "release",
            "type": "operation.released",
            "revision": 3 + 2 * number,
        }
        started = {"transition": "claim", "type": "operation.started", "revision": 4 + 2 * number}
        rows += [template | released, template | started]
    with watcher.watch(ALICE, operation.id, 0) as watch:
        await taken(watch, 1)
        stored.execute(sa.insert(events), rows)
        last = rows[-1]["revision"]
        stored.execute(
            sa.update(operations)
            .where(operations.c.id == operation.id)
            .values(revision=last, attempt=rounds + 1, max_attempts=rounds + 2)
        )
        subscriptions.publish(operation.id)
        seen = await taken(watch, 2 * rounds)
    assert [item.revision for item in seen] == list(range(3, last + 1))
    assert {item.status for item in seen[::2]} == {Status.PENDING}
    assert {item.status for item in seen[1::2]} == {Status.PROCESSING}
    assert [item.attempt for item in seen[::2]] == list(range(1, rounds + 1))
    assert [item.attempt for item in seen[1::2]] == list(range(2, rounds + 2))


async def test_quiet_watch_says_that_it_lives(store, stores, subscriptions):
    """When nothing happens for a while a watch yields nothing, and goes on."""
    watcher = Watcher(store, stores.history, subscriptions, longest=LONG_S, keep_alive=QUIET_S)
    operation = await factories.create(store)
    with watcher.watch(ALICE, operation.id, operation.revision) as watch:
        assert await taken(watch, 2) == [None, None]
        cancelled = await moved(store, subscriptions, Transition.CANCEL, operation)
        assert [item for item in await rest(watch) if item is not None] == [cancelled]


async def test_foreign_is_missing_to_those_who_wait(store, subscriptions, watcher):
    """Nobody waits for, holds or watches what is none of its business."""
    operation = await factories.create(store)
    for operation_id in (operation.id, new_operation_id()):
        with pytest.raises(OperationNotFound) as caught:
            await watcher.wait(MALLORY, operation_id, LONG_S)
        assert type(caught.value) is OperationNotFound
        with pytest.raises(OperationNotFound):
            await watcher.hold(MALLORY, operation_id, LONG_S)
        with watcher.watch(MALLORY, operation_id, 0) as watch, pytest.raises(OperationNotFound):
            await anext(watch)
    assert not subscriptions.subscribers


async def test_operation_that_expires_is_gone_for_those_who_wait(
    store, stores, engine, subscriptions, watcher
):
    """Who waits for an operation or watches it is told when it expires, before any sweep.

    Nobody publishes that time passes: it is found by looking.
    """
    operation = await factories.create(store)
    poller = Poller(stores.history, subscriptions, interval=QUIET_S)
    with watcher.watch(ALICE, operation.id, 0) as watch:
        await taken(watch, 1)
        waiting = asyncio.create_task(watcher.wait(ALICE, operation.id, LONG_S))
        await until(lambda: have_seen(subscriptions, operation))
        factories.age(engine, operation.id, timedelta(days=2))
        polling = asyncio.create_task(poller.run())
        with pytest.raises(OperationExpired):
            await taken(watch, 1)
        with pytest.raises(OperationExpired):
            await waiting
        polling.cancel()


async def test_every_change_is_found_without_a_hint(store, stores, replica, subscriptions, watcher):
    """What another replica did is found by the poll alone, by everybody who waits."""
    mine, other = [await factories.create(store) for _ in range(2)]
    with watcher.watch(ALICE, mine.id, 0) as watch, subscriptions.listen(other.id) as subscriber:
        await taken(watch, 1)
        subscriber.seen = other.revision
        waiting = asyncio.create_task(watcher.wait(ALICE, mine.id, LONG_S))
        await until(lambda: have_seen(subscriptions, mine))
        poller = Poller(stores.history, subscriptions, interval=LONG_S)
        await poller.look()
        await replica.apply(factories.change(Transition.CANCEL, mine.id))
        polling = asyncio.create_task(poller.run())
        poller.look_now()
        assert [item.status for item in await rest(watch)] == [Status.CANCELLED]
        assert (await waiting).status is Status.CANCELLED
        assert not await subscriber.wait(0.0)
        polling.cancel()


async def test_closing_lets_everybody_go(store, subscriptions, watcher):
    """When the replica stops who waits is answered, and who watches is sent to another one."""
    operation = await factories.create(store)
    with watcher.watch(ALICE, operation.id, 0) as watch:
        await taken(watch, 1)
        watched = asyncio.create_task(anext(watch))
        waiting = asyncio.create_task(watcher.wait(ALICE, operation.id, LONG_S))
        await until(lambda: len(subscriptions.subscribers[operation.id]) == 2)
        watcher.close()
        async with asyncio.timeout(LONG_S / 2):
            assert await waiting == operation
            with pytest.raises(Draining):
                await watched
            assert await watcher.wait(ALICE, operation.id, LONG_S) == operation


async def test_who_gives_up_waiting_leaves_nothing(store, subscriptions, watcher):
    """A wait that is cancelled leaves no listener behind."""
    operation = await factories.create(store)
    waiting = asyncio.create_task(watcher.wait(ALICE, operation.id, LONG_S))
    await until(lambda: bool(subscriptions.subscribers))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not subscriptions.subscribers
