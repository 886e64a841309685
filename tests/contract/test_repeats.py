"""Retries and preconditions: a client may always retry, and never changes an old copy."""

import pytest

from milepost.domain.errors import IllegalTransition, RevisionMismatch, StaleAttempt
from milepost.domain.operation import Status
from milepost.domain.transitions import Transition
from tests import factories

# The requested transitions, and a source status of each.
SOURCES = {
    Transition.START: Status.PENDING,
    Transition.PROGRESS: Status.PROCESSING,
    Transition.COMPLETE: Status.PROCESSING,
    Transition.FAIL: Status.PROCESSING,
    Transition.CANCEL: Status.PENDING,
}
FINAL = [transition for transition in SOURCES if transition is not Transition.PROGRESS]


@pytest.mark.parametrize("transition", SOURCES)
async def test_repeated_move_is_answered_not_made(store, stored, transition):
    """A retried transition changes nothing, and returns the stored operation."""
    operation = await factories.reach(store, SOURCES[transition])
    change = factories.change(transition, operation.id, request_id="r-1")
    first = await store.apply(change)
    before = stored.everything(operation.id)
    again = await store.apply(change)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.operation == await store.get(operation.id, factories.access_filter())
    assert stored.everything(operation.id) == before


async def test_repeated_start_by_progress_is_answered(store, stored):
    """A retried report that started the operation changes nothing."""
    operation = await factories.create(store)
    change = factories.change(Transition.PROGRESS, operation.id, progress=0.5, request_id="r-1")
    await store.apply(change)
    before = stored.everything(operation.id)
    assert (await store.apply(change)).replayed
    assert stored.everything(operation.id) == before


async def test_repetition_shows_the_operation_as_it_stands(store):
    """A late retry returns the operation as it is now."""
    operation = await factories.create(store)
    start = factories.change(Transition.START, operation.id, request_id="r-1")
    progress = factories.change(Transition.PROGRESS, operation.id, request_id="r-2", progress=0.5)
    await store.apply(start)
    await store.apply(progress)
    await store.apply(factories.change(Transition.COMPLETE, operation.id))
    for repeated in (await store.apply(start), await store.apply(progress)):
        assert repeated.replayed
        assert repeated.operation.status is Status.COMPLETED


async def test_repetition_outranks_stale_tokens(store):
    """A retry succeeds although its first try has changed the expected revision."""
    operation = await factories.create(store)
    change = factories.change(
        Transition.CANCEL, operation.id, request_id="r-1", expected_revision=1
    )
    await store.apply(change)
    assert (await store.apply(change)).replayed


@pytest.mark.parametrize("transition", FINAL)
async def test_another_request_is_no_repetition(store, transition):
    """A second end with another request_id, or without one, is an illegal transition."""
    operation = await factories.reach(store, SOURCES[transition])
    await store.apply(factories.change(transition, operation.id, request_id="r-1"))
    for request_id in ("r-2", None):
        with pytest.raises(IllegalTransition):
            await store.apply(factories.change(transition, operation.id, request_id=request_id))


async def test_another_actor_is_no_repetition(store):
    """The same request_id of another actor is not a retry."""
    operation = await factories.create(store)
    await store.apply(factories.change(Transition.CANCEL, operation.id, request_id="r-1"))
    admin = factories.access_filter("admin", everything=True)
    with pytest.raises(IllegalTransition):
        await store.apply(
            factories.change(Transition.CANCEL, operation.id, request_id="r-1", access_filter=admin)
        )


async def test_moves_without_request_id_are_no_repetitions(store):
    """Two calls without a request_id are two transitions."""
    operation = await factories.create(store)
    await store.apply(factories.change(Transition.CANCEL, operation.id))
    with pytest.raises(IllegalTransition):
        await store.apply(factories.change(Transition.CANCEL, operation.id))


@pytest.mark.parametrize("transition", [*SOURCES, Transition.PURGE])
async def test_expected_revision(store, stored, transition):
    """A stale expected_revision is refused with both revisions; the current one is accepted."""
    operation = await factories.reach(store, SOURCES.get(transition, Status.COMPLETED))
    before = stored.everything(operation.id)
    for expected in (operation.revision - 1, operation.revision + 1):
        with pytest.raises(RevisionMismatch) as caught:
            await store.apply(
                factories.change(transition, operation.id, expected_revision=expected)
            )
        assert (caught.value.expected, caught.value.actual) == (expected, operation.revision)
    assert stored.everything(operation.id) == before
    change = factories.change(transition, operation.id, expected_revision=operation.revision)
    assert not (await store.apply(change)).replayed


@pytest.mark.parametrize("transition", [Transition.PROGRESS, Transition.COMPLETE, Transition.FAIL])
async def test_attempt(store, stored, transition):
    """Another attempt is refused with both attempts; the current one is accepted."""
    operation = await factories.reach(store, Status.PROCESSING)
    before = stored.everything(operation.id)
    with pytest.raises(StaleAttempt) as caught:
        await store.apply(factories.change(transition, operation.id, attempt=0))
    assert (caught.value.expected, caught.value.actual) == (0, 1)
    assert stored.everything(operation.id) == before
    assert not (await store.apply(factories.change(transition, operation.id, attempt=1))).replayed


async def test_stale_tokens_are_named_before_the_status(store):
    """A stale revision or attempt is reported before the status."""
    operation = await factories.reach(store, Status.COMPLETED)
    stale = {"expected_revision": 1, "attempt": 9}
    with pytest.raises(RevisionMismatch):
        await store.apply(factories.change(Transition.COMPLETE, operation.id, **stale))
    with pytest.raises(StaleAttempt):
        await store.apply(factories.change(Transition.COMPLETE, operation.id, attempt=9))
