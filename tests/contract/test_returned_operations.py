"""Operations that return to an earlier status: repeated requests and fallbacks change nothing."""

from datetime import timedelta

import pytest

from milepost.domain.operation import RetryPolicy, Status
from milepost.domain.transitions import FALLBACK, Transition
from milepost.storage import statements
from milepost.storage.session import Session
from tests import factories
from tests.contract.test_claims import WORKER, claim

ONE = claim()
AT_ONCE = RetryPolicy(
    initial_backoff=timedelta(), backoff_multiplier=2.0, max_backoff=timedelta(minutes=5)
)


async def claimed(stores, **overrides):
    """Return an operation that a worker has claimed."""
    await factories.create(stores.operations, retry_policy=AT_ONCE, **overrides)
    (operation,) = await stores.work.claim(ONE)
    return operation


@pytest.mark.parametrize("transition", [Transition.RELEASE, Transition.RETRY])
async def test_repeated_return_leaves_the_next_attempt_alone(store, stores, stored, transition):
    """A release or a retry that is sent again after the next claim is replayed, not made again."""
    operation = await claimed(stores)
    request = factories.change(
        transition,
        operation.id,
        access_filter=WORKER,
        request_id="r-1",
        errors=(factories.error(),),
    )
    assert not (await store.apply(request)).replayed
    (again,) = await stores.work.claim(ONE)
    before = stored.everything(operation.id)
    result = await store.apply(request)
    assert (result.replayed, result.operation.attempt) == (True, again.attempt)
    assert stored.everything(operation.id) == before


async def test_repeated_start_does_not_begin_another_attempt(store, stored):
    """A start that is sent again after a release is replayed."""
    operation = await factories.create(store)
    start = factories.change(Transition.START, operation.id, request_id="r-1")
    await store.apply(start)
    await store.apply(factories.change(Transition.RELEASE, operation.id))
    before = stored.everything(operation.id)
    result = await store.apply(start)
    assert (result.replayed, result.operation.status) == (True, Status.PENDING)
    assert stored.everything(operation.id) == before


async def test_repeated_request_to_cancel_keeps_the_grace(store, stores, stored):
    """A request to cancel that is sent again does not move the end of the grace."""
    operation = await claimed(stores)
    request = factories.change(Transition.REQUEST_CANCEL, operation.id, request_id="r-1")
    first = await store.apply(request)
    before = stored.everything(operation.id)
    result = await store.apply(request)
    assert (result.replayed, result.operation) == (True, first.operation)
    assert stored.everything(operation.id) == before


@pytest.mark.parametrize("transition", FALLBACK)
async def test_fallback_is_for_what_cannot_happen(stores, engine, stored, transition):
    """Without its reason, the statement of a fallback changes nothing.

    An operation may be claimed between the statement of a transition and that of its fallback.
    """
    operation = await claimed(stores)
    before = stored.everything(operation.id)
    session = Session(engine)
    statement = statements.fallback(session.database, transition)
    request = factories.change(transition, operation.id)
    assert session.run(statement, [statements.values(request)]) == []
    session.reset()
    assert stored.everything(operation.id) == before
