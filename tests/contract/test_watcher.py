"""Waits and watches over each database: contents, order and completeness."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.errors import (
    Draining,
    OperationExpired,
    OperationNotFound,
    RevisionAhead,
)
from milepost.domain.operation import Principal, Role, Status, new_operation_id
from milepost.domain.transitions import TABLE, Transition
from milepost.storage.tables import events, operations
from milepost.tracking.poller import Poller
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.watcher import MAX_STATUS_CHANGES, Watcher
from tests import factories
from tests.waiting import until

ALICE = Principal(
    subject=factories.OWNER, roles=frozenset({Role.CALLER}), credential_id="a", functions=()
)
MALLORY = Principal(
    subject=factories.STRANGER, roles=frozenset({Role.CALLER}), credential_id="m", functions=()
)
LONG_S = 20.0
"""Longer than any test may take: a wait that ends earlier was not ended by its timeout."""
QUIET_S = 0.02


@pytest.fixture
def subscriptions() -> Subscriptions:
    """Subscriptions without a subscriber."""
    return Subscriptions()


@pytest.fixture
def watcher(store, stores, subscriptions) -> Watcher:
    """A watcher of a store whose transitions the test publishes."""
    return Watcher(store, stores.history, subscriptions, max_wait=LONG_S, keep_alive=LONG_S)


async def transitioned(store, subscriptions, transition, operation, **overrides):
    """Return the operation after a transition that is published."""
    result = await store.apply(factories.change(transition, operation.id, **overrides))
    subscriptions.publish(operation.id)
    return result.operation


def have_seen(subscriptions, operation):
    """Return whether the operation has subscribers and all of them have read it."""
    group = subscriptions.polled.get(operation.id, ())
    return bool(group) and all(subscriber.seen_revision for subscriber in group)


async def taken(watch, count):
    """Return the next items of a watch."""
    async with asyncio.timeout(LONG_S):
        return [await anext(watch) for _ in range(count)]


async def rest(watch):
    """Return the items of a watch up to its end."""
    async with asyncio.timeout(LONG_S):
        return [item async for item in watch]


async def test_wait_ends_with_the_operation(store, subscriptions, watcher):
    """A wait is ended by the terminal transition, not by progress."""
    operation = await factories.reach(store, Status.PROCESSING)
    waiting = asyncio.create_task(watcher.wait(ALICE, operation.id, LONG_S))
    await until(lambda: bool(subscriptions.polled))
    await transitioned(store, subscriptions, Transition.PROGRESS, operation, progress=0.5)
    done = await transitioned(store, subscriptions, Transition.COMPLETE, operation)
    async with asyncio.timeout(LONG_S / 2):
        assert await waiting == done
    assert not subscriptions.polled


@pytest.mark.parametrize("seconds", [0.0, QUIET_S])
async def test_wait_ends_at_its_timeout(store, watcher, seconds):
    """A timeout is not an error: the active operation is returned."""
    operation = await factories.reach(store, Status.PROCESSING)
    assert await watcher.wait(ALICE, operation.id, seconds) == operation


async def test_wait_is_limited(store, stores, subscriptions):
    """The operator's limit ends a wait, whatever the caller requests."""
    watcher = Watcher(store, stores.history, subscriptions, max_wait=QUIET_S, keep_alive=LONG_S)
    operation = await factories.create(store)
    async with asyncio.timeout(LONG_S / 2):
        assert await watcher.wait(ALICE, operation.id, 1e9) == operation


async def test_wait_for_change_ends_at_the_first_change(store, subscriptions, watcher):
    """A wait for a change ends at the first one, progress included, or at its timeout."""
    operation = await factories.reach(store, Status.PROCESSING)
    holding = asyncio.create_task(watcher.wait_for_change(ALICE, operation.id, LONG_S))
    await until(lambda: have_seen(subscriptions, operation))
    subscriptions.publish(operation.id)  # without a change
    now = await transitioned(store, subscriptions, Transition.PROGRESS, operation, progress=0.5)
    async with asyncio.timeout(LONG_S / 2):
        assert await holding == now
    assert await watcher.wait_for_change(ALICE, operation.id, QUIET_S) == now


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_terminal_operation_is_returned_at_once(store, watcher, status):
    """A terminal operation is returned at once by both kinds of wait."""
    operation = await factories.reach(store, status)
    async with asyncio.timeout(LONG_S / 2):
        assert await watcher.wait(ALICE, operation.id, LONG_S) == operation
        assert await watcher.wait_for_change(ALICE, operation.id, LONG_S) == operation


async def test_watch_begins_with_the_operation_as_it_is(store, subscriptions, watcher):
    """A watch from revision 0 yields the operation, then each change, and ends after the last."""
    operation = await factories.create(store)
    with watcher.watch(ALICE, operation.id, 0) as watch:
        seen = await taken(watch, 1)
        for transition in (Transition.START, Transition.COMPLETE):
            await transitioned(store, subscriptions, transition, operation)
            seen += await taken(watch, 1)
        assert await rest(watch) == []
    assert [item.status for item in seen] == ["PENDING", "PROCESSING", "COMPLETED"]
    assert [item.revision for item in seen] == [1, 2, 3]
    assert not subscriptions.polled


@pytest.mark.parametrize("status", [Status.PENDING, Status.CANCELLED])
@pytest.mark.parametrize("ahead", [1, 1_000, 2**63 - 1])
async def test_revision_that_was_never_reached_is_refused(store, watcher, status, ahead):
    """A watch after a revision that the operation has not reached is refused at once."""
    operation = await factories.reach(store, status)
    after = min(operation.revision + ahead, 2**63 - 1)
    with watcher.watch(ALICE, operation.id, after) as watch:
        async with asyncio.timeout(LONG_S / 2):
            with pytest.raises(RevisionAhead) as caught:
                await anext(watch)
    assert caught.value.facts == {"requested": str(after), "actual": str(operation.revision)}


async def test_watch_over_a_restored_database_is_refused(store, stored, subscriptions, watcher):
    """A watch ends when the operation returns to an earlier revision, as after a restore."""
    operation = await factories.reach(store, Status.PROCESSING)
    with watcher.watch(ALICE, operation.id, 0) as watch:
        assert (await taken(watch, 1))[0].revision == operation.revision
        restored = operations.c.id == operation.id
        stored.execute(sa.update(operations).where(restored).values(revision=1))
        subscriptions.publish(operation.id)
        async with asyncio.timeout(LONG_S / 2):
            with pytest.raises(RevisionAhead):
                await anext(watch)


async def test_slow_reader_misses_progress_and_no_status(store, subscriptions, watcher):
    """A slow reader gets every status change, and of progress only the newest.

    A reader that was cut off gets the same.
    """
    operation = await factories.create(store)
    with watcher.watch(ALICE, operation.id, 0) as slow:
        await taken(slow, 1)
        latest = operation
        for progress in (0.1, 0.2, 0.3):  # the first one starts it
            latest = await transitioned(
                store, subscriptions, Transition.PROGRESS, operation, progress=progress
            )
        seen = await taken(slow, 2)
        await transitioned(store, subscriptions, Transition.PROGRESS, operation, progress=0.4)
        await transitioned(store, subscriptions, Transition.COMPLETE, operation)
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


async def test_past_status_change_shows_no_later_fact(store, watcher):
    """The operation after a past status change has the values of that time, and no later ones."""
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


async def test_every_attempt_is_watched(store, stored, subscriptions, watcher):
    """Every release and every new start is yielded, with its attempt.

    The same holds for more changes than one read returns.
    """
    operation = await factories.reach(store, Status.PROCESSING)
    cycles = MAX_STATUS_CHANGES  # two changes of status each
    template = stored.events(operation.id)[-1]
    rows = []
    for number in range(cycles):
        released = {
            "transition": "release",
            "type": "operation.released",
            "revision": 3 + 2 * number,
            "attempt": number + 1,
        }
        started = {
            "transition": "claim",
            "type": "operation.started",
            "revision": 4 + 2 * number,
            "attempt": number + 2,
        }
        rows += [template | released, template | started]
    with watcher.watch(ALICE, operation.id, 0) as watch:
        await taken(watch, 1)
        stored.execute(sa.insert(events), rows)
        last = rows[-1]["revision"]
        stored.execute(
            sa.update(operations)
            .where(operations.c.id == operation.id)
            .values(revision=last, attempt=cycles + 1, max_attempts=cycles + 2)
        )
        subscriptions.publish(operation.id)
        seen = await taken(watch, 2 * cycles)
    assert [item.revision for item in seen] == list(range(3, last + 1))
    assert {item.status for item in seen[::2]} == {Status.PENDING}
    assert {item.status for item in seen[1::2]} == {Status.PROCESSING}
    assert [item.attempt for item in seen[::2]] == list(range(1, cycles + 1))
    assert [item.attempt for item in seen[1::2]] == list(range(2, cycles + 2))


PATHS = {
    "retried and cancelled": [Transition.RETRY, Transition.CANCEL],
    "released and cancelled": [Transition.PROGRESS, Transition.RELEASE, Transition.CANCEL],
    "retried and started again": [Transition.RETRY, Transition.START],
    "retried twice": [Transition.RETRY, Transition.START, Transition.PROGRESS, Transition.RETRY],
    "asked and acknowledged": [Transition.REQUEST_CANCEL, Transition.ACKNOWLEDGE],
    "asked twice": [Transition.REQUEST_CANCEL, Transition.PROGRESS, Transition.REQUEST_CANCEL],
    "asked, and completed later": [
        Transition.PROGRESS,
        Transition.REQUEST_CANCEL,
        Transition.PROGRESS,
        Transition.COMPLETE,
    ],
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("reader", ["cut off", "slow", "fast"])
async def test_every_recorded_transition_is_shown_once(store, stored, watcher, path, reader):
    """Each recorded transition is shown once, in order, however late its reader reads."""
    operation = await factories.reach(store, Status.PROCESSING, max_attempts=9)
    seen = []
    after = operation.revision if reader == "cut off" else 0
    with watcher.watch(ALICE, operation.id, after) as watch:
        if not after:
            await taken(watch, 1)
        for transition in path:
            change = factories.change(transition, operation.id)
            operation = (await store.apply(change)).operation
            watcher.subscriptions.publish(operation.id)
            if reader == "fast":
                seen += await taken(watch, 1)
        while not seen or seen[-1].revision < operation.revision:
            seen += await taken(watch, 1)
    shown = [item.revision for item in seen]
    recorded = [event["revision"] for event in stored.events(operation.id) if event["revision"] > 2]
    assert shown == sorted(set(shown))
    assert set(recorded) <= set(shown)
    assert seen[-1] == operation
    by_revision = {event["revision"]: event for event in stored.events(operation.id)}
    for item in seen:
        if (event := by_revision.get(item.revision)) is not None:
            assert item.status == TABLE[Transition(event["transition"])].target
            assert item.attempt == event["attempt"]
            asked = event["transition"] == Transition.REQUEST_CANCEL
            assert item.cancel_request_time is not None or not asked


async def test_quiet_watch_yields_none(store, stores, subscriptions):
    """A watch without a change for a while yields None, and goes on."""
    watcher = Watcher(store, stores.history, subscriptions, max_wait=LONG_S, keep_alive=QUIET_S)
    operation = await factories.create(store)
    with watcher.watch(ALICE, operation.id, operation.revision) as watch:
        assert await taken(watch, 2) == [None, None]
        cancelled = await transitioned(store, subscriptions, Transition.CANCEL, operation)
        assert [item for item in await rest(watch) if item is not None] == [cancelled]


async def test_operation_of_another_owner_is_missing(store, subscriptions, watcher):
    """An operation that the caller may not read is missing to waits and watches."""
    operation = await factories.create(store)
    for operation_id in (operation.id, new_operation_id()):
        with pytest.raises(OperationNotFound) as caught:
            await watcher.wait(MALLORY, operation_id, LONG_S)
        assert type(caught.value) is OperationNotFound
        with pytest.raises(OperationNotFound):
            await watcher.wait_for_change(MALLORY, operation_id, LONG_S)
        with watcher.watch(MALLORY, operation_id, 0) as watch, pytest.raises(OperationNotFound):
            await anext(watch)
    assert not subscriptions.polled


async def test_expiry_ends_waits_and_watches(store, stores, engine, subscriptions, watcher):
    """Waits and watches end with OperationExpired when it expires, before any sweep.

    Expiry is not published, so a poll finds it.
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


async def test_every_change_is_found_without_a_notification(
    store, stores, replica, subscriptions, watcher
):
    """A change on another replica is found by the poll alone, for all waits and watches."""
    changed, other = [await factories.create(store) for _ in range(2)]
    with (
        watcher.watch(ALICE, changed.id, 0) as watch,
        subscriptions.subscribed(other.id) as subscriber,
    ):
        await taken(watch, 1)
        subscriber.seen_revision = other.revision
        waiting = asyncio.create_task(watcher.wait(ALICE, changed.id, LONG_S))
        await until(lambda: have_seen(subscriptions, changed))
        poller = Poller(stores.history, subscriptions, interval=LONG_S)
        await poller.poll()
        await replica.apply(factories.change(Transition.CANCEL, changed.id))
        polling = asyncio.create_task(poller.run())
        poller.poll_now()
        assert [item.status for item in await rest(watch)] == [Status.CANCELLED]
        assert (await waiting).status is Status.CANCELLED
        assert not await subscriber.wait(0.0)
        polling.cancel()


async def test_close_ends_waits_and_watches(store, subscriptions, watcher):
    """A stopping replica answers waits with the operation and watches with Draining."""
    operation = await factories.create(store)
    with watcher.watch(ALICE, operation.id, 0) as watch:
        await taken(watch, 1)
        watched = asyncio.create_task(anext(watch))
        waiting = asyncio.create_task(watcher.wait(ALICE, operation.id, LONG_S))
        await until(lambda: len(subscriptions.polled[operation.id]) == 2)
        watcher.close()
        async with asyncio.timeout(LONG_S / 2):
            assert await waiting == operation
            with pytest.raises(Draining):
                await watched
            assert await watcher.wait(ALICE, operation.id, LONG_S) == operation


async def test_cancelled_wait_leaves_nothing(store, subscriptions, watcher):
    """A cancelled wait leaves no subscriber behind."""
    operation = await factories.create(store)
    waiting = asyncio.create_task(watcher.wait(ALICE, operation.id, LONG_S))
    await until(lambda: bool(subscriptions.polled))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not subscriptions.polled
