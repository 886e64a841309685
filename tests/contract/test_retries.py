"""Failed attempts: pauses, the last attempt, run timeouts, and the errors that stay in history."""

from datetime import timedelta

import pytest

from milepost.domain.errors import IllegalTransition, StaleAttempt
from milepost.domain.operation import RetryPolicy, Status
from milepost.domain.sweep import RETRY, RUN_OUT, SWEEPS, TIME_OUT
from milepost.domain.transitions import QUEUE_TIMEOUT, RUN_TIMEOUT, Transition
from tests import factories
from tests.contract.stored import history_of
from tests.contract.test_claims import WORKER, claim

ONE = claim()
LATE = timedelta(seconds=1)
AT_ONCE = RetryPolicy(
    initial_backoff=timedelta(), backoff_multiplier=2.0, max_backoff=timedelta(minutes=5)
)


def retry(operation, **overrides):
    """Return the report of a retryable failure of the operation's attempt."""
    fields = {"access_filter": WORKER, "attempt": operation.attempt, **overrides}
    return factories.change(Transition.RETRY, operation.id, **fields)


async def claimed(stores, **overrides):
    """Return an operation that a worker has claimed."""
    await factories.create(stores.operations, **overrides)
    (operation,) = await stores.work.claim(ONE)
    return operation


def pause(stored, operation):
    """Return the time from the last event of the operation to its next attempt."""
    event = stored.events(operation.id)[-1]
    return operation.next_attempt_time - event["time"]


async def test_retryable_failure_returns_the_operation(store, stores, stored):
    """While attempts are left, a retryable failure clears the attempt and keeps its errors."""
    operation = await claimed(stores)
    report = factories.change(
        Transition.PROGRESS,
        operation.id,
        access_filter=WORKER,
        progress=0.4,
        checkpoint=factories.payload(),
    )
    await store.apply(report)
    result = await store.apply(retry(operation, errors=(factories.error("BUSY"),)))
    again = result.operation
    assert result.transition is Transition.RETRY
    assert (again.status, again.progress, again.worker) == (Status.PENDING, None, None)
    assert (again.attempt, again.failed_attempts) == (1, 1)
    assert again.checkpoint == factories.payload()
    assert again.errors == ()
    events = await history_of(stores, operation)
    assert [(event.type, event.attempt, event.worker) for event in events] == [
        ("operation.created", 0, None),
        ("operation.started", 1, "wally-1"),
        ("operation.retrying", 1, "wally-1"),
    ]
    assert [error.code for error in events[-1].errors] == ["BUSY"]
    assert len(stored.deliveries(operation.id)) == 2


async def test_last_attempt_fails(store, stores):
    """A retryable failure of the last attempt fails the operation, with the errors of both."""
    operation = await claimed(stores, max_attempts=2, retry_policy=AT_ONCE)
    await store.apply(retry(operation, errors=(factories.error("FIRST"),)))
    (operation,) = await stores.work.claim(ONE)
    result = await store.apply(
        retry(operation, errors=(factories.error("SECOND"),), request_id="r-1")
    )
    assert result.transition is Transition.FAIL
    ended = result.operation
    assert (ended.status, ended.attempt, ended.failed_attempts) == (Status.FAILED, 2, 2)
    assert [error.code for error in ended.errors] == ["SECOND"]
    events = await history_of(stores, operation)
    assert [e.errors[0].code for e in events if e.errors] == ["FIRST", "SECOND"]
    again = await store.apply(retry(operation, request_id="r-1"))
    assert again.replayed


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (factories.RETRY_POLICY, [1, 2, 4, 8]),
        (
            RetryPolicy(
                initial_backoff=timedelta(seconds=10),
                backoff_multiplier=3.0,
                max_backoff=timedelta(seconds=60),
            ),
            [10, 30, 60, 60],
        ),
        (
            RetryPolicy(
                initial_backoff=timedelta(minutes=10),
                backoff_multiplier=1.0,
                max_backoff=timedelta(minutes=1),
            ),
            [60, 60],
        ),
    ],
)
async def test_pauses_grow(stores, stored, engine, policy, expected):
    """Each pause is a multiple of the one before, up to the longest, give or take a fifth."""
    operation = await claimed(stores, max_attempts=9, retry_policy=policy)
    for seconds in expected:
        waiting = (await stores.operations.apply(retry(operation))).operation
        found = pause(stored, waiting).total_seconds()
        assert 0.8 * seconds - 0.01 <= found <= 1.2 * seconds + 0.01
        factories.age(engine, operation.id, timedelta(minutes=2))
        await stores.work.wake_due(10)
        (operation,) = await stores.work.claim(ONE)


async def test_delay_of_the_worker_replaces_the_pause(store, stores, stored):
    """A worker may choose the delay of the next attempt itself, also none."""
    operation = await claimed(stores, max_attempts=9)
    waiting = (await store.apply(retry(operation, delay=timedelta(hours=2)))).operation
    assert abs(pause(stored, waiting) - timedelta(hours=2)) < timedelta(milliseconds=50)
    other = await claimed(stores, max_attempts=9)
    waiting = (await store.apply(retry(other, delay=timedelta()))).operation
    assert waiting.next_attempt_time is None


async def test_pauses_are_spread(store, stores, stored):
    """Operations that fail together do not come back together."""
    pauses = []
    for _ in range(20):
        operation = await claimed(stores)
        pauses.append(pause(stored, (await store.apply(retry(operation))).operation))
    assert max(pauses) - min(pauses) > timedelta(milliseconds=50)


async def test_retry_of_a_pending_operation_is_illegal(store, stores, stored):
    """An operation that is not processed has no attempt that could fail."""
    operation = await factories.create(store)
    with pytest.raises(IllegalTransition) as caught:
        await store.apply(retry(operation, attempt=None))
    assert caught.value.allowed == (Status.PROCESSING,)
    taken = await claimed(stores)
    await store.apply(retry(taken))
    before = stored.everything(taken.id)
    with pytest.raises(StaleAttempt):
        await store.apply(retry(taken))
    assert stored.everything(taken.id) == before


async def test_expired_operation_is_not_retried(store, stores, engine):
    """A retryable failure past the expire_time fails the operation: no attempt can follow."""
    operation = await claimed(stores, ttl=timedelta(hours=1))
    factories.age(engine, operation.id, timedelta(hours=2))
    result = await store.apply(retry(operation))
    assert result.transition is Transition.FAIL


async def test_run_timeout_fails_the_attempt(stores, engine):
    """An attempt that takes longer than run_timeout is retried, and the last one fails."""
    operation = await claimed(
        stores, max_attempts=2, run_timeout=timedelta(minutes=1), retry_policy=AT_ONCE
    )
    assert operation.run_expire_time == operation.start_time + timedelta(minutes=1)
    for sweep, status in ((RETRY, Status.PENDING), (RUN_OUT, Status.FAILED)):
        for each in (RETRY, RUN_OUT):
            assert await stores.sweeps.sweep(each, 10) == []
        factories.age(engine, operation.id, timedelta(minutes=1) + LATE)
        (other,) = {RETRY, RUN_OUT} - {sweep}
        assert await stores.sweeps.sweep(other, 10) == []
        (swept,) = await stores.sweeps.sweep(sweep, 10)
        assert (swept.status, swept.run_expire_time) == (status, None)
        if status is Status.PENDING:
            await stores.work.claim(ONE)
    ended = await stores.operations.get(operation.id, factories.access_filter())
    assert (ended.failed_attempts, ended.errors[0].code) == (2, RUN_TIMEOUT)
    events = await history_of(stores, operation)
    assert [e.errors[0].code for e in events if e.errors] == [RUN_TIMEOUT] * 2


async def test_progress_does_not_extend_the_run_timeout(store, stores):
    """Progress renews the lease of an attempt, not its run_timeout."""
    operation = await claimed(stores, run_timeout=timedelta(minutes=1))
    request = factories.change(Transition.PROGRESS, operation.id, access_filter=WORKER)
    assert (await store.apply(request)).operation.run_expire_time == operation.run_expire_time


async def test_queue_timeout_fails_the_operation(store, stores, engine):
    """An operation that no worker claims within queue_timeout fails; a claim ends that clock."""
    operation = await factories.create(store, queue_timeout=timedelta(minutes=1))
    taken = await claimed(stores, owner="bob", queue_timeout=timedelta(minutes=1))
    if taken.id == operation.id:  # claims are fair, in no promised order
        (taken,) = await stores.work.claim(ONE)
    assert taken.queue_expire_time is None
    waiting = await factories.create(store, queue_timeout=timedelta(minutes=1))
    assert waiting.queue_expire_time == waiting.create_time + timedelta(minutes=1)
    factories.age(engine, waiting.id, timedelta(minutes=1) + LATE)
    factories.age(engine, taken.id, timedelta(minutes=1) + LATE)
    due = {sweep: await stores.sweeps.due(sweep) for sweep in SWEEPS}
    assert due[TIME_OUT] == 1
    (swept,) = await stores.sweeps.sweep(TIME_OUT, 10)
    assert (swept.id, swept.status) == (waiting.id, Status.FAILED)
    ended = await store.get(waiting.id, factories.access_filter())
    assert [error.code for error in ended.errors] == [QUEUE_TIMEOUT]
    assert ended.start_time is None


async def test_queue_timeout_begins_again_after_an_attempt(store, stores):
    """The queue_timeout of an operation that is pending again counts from its next attempt on."""
    operation = await claimed(stores, queue_timeout=timedelta(minutes=1))
    again = (await store.apply(retry(operation, delay=timedelta(hours=1)))).operation
    assert again.queue_expire_time == again.next_attempt_time + timedelta(minutes=1)


async def test_quota_counts_a_retried_operation_once(store, stores):
    """Retries and releases leave the number of active operations of the owner as it is."""
    operation = await claimed(stores, quota=2, retry_policy=AT_ONCE)
    for transition in (Transition.RETRY, Transition.RELEASE):
        request = factories.change(transition, operation.id, access_filter=WORKER)
        await store.apply(request)
        await stores.work.claim(ONE)
    await factories.create(store, quota=2)
    with pytest.raises(Exception, match="2 operations are active"):
        await factories.create(store, quota=2)
