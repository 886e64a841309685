"""Operations in a status that only a newer release knows: readable, and never changed."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.delivery import DeliveryClaim, DeliverySelection
from milepost.domain.errors import IllegalTransition
from milepost.domain.operation import Status, UnknownStatus, new_operation_id
from milepost.domain.selection import Selection
from milepost.domain.sweep import SWEEPS
from milepost.domain.transitions import ACTIVE, TERMINAL, Transition
from milepost.storage.effects import EFFECTS
from milepost.storage.tables import events, operations
from milepost.webhooks.body import body_of
from tests import factories
from tests.contract.test_claims import CLAIM, claim
from tests.contract.test_sweeps import NOTHING, sweep

PAUSED = UnknownStatus("PAUSED")
LONG = timedelta(days=30)
"""Time longer than every lease and every ttl."""


@pytest.fixture
def engine(engine):
    """A database without CHECK constraints, as if a newer release had migrated it."""
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def _uncheck(connection, _record):
            connection.execute("PRAGMA ignore_check_constraints = ON")

        return engine
    with engine.begin() as connection:
        for check in operations.constraints:
            if isinstance(check, sa.CheckConstraint):
                connection.execute(sa.text(f"ALTER TABLE operations DROP CONSTRAINT {check.name}"))
    return engine


def pause(engine, operation):
    """Pause the operation, with its event, as a newer release does."""
    with engine.begin() as connection:
        connection.execute(
            sa.update(operations)
            .where(operations.c.id == operation.id)
            .values(status="PAUSED", revision=operation.revision + 1)
        )
        connection.execute(
            sa.insert(events).values(
                operation_id=operation.id,
                revision=operation.revision + 1,
                type="operation.paused",
                transition="pause",
                owner=operation.owner,
                actor=operation.owner,
                time=operation.create_time,
            )
        )


@pytest.fixture(params=["pending", "claimed", "completed"])
async def paused(request, store, stores, engine):
    """A paused operation with one of several histories."""
    operation = await factories.create(store, request_id="r-1")
    if request.param == "claimed":
        (operation,) = await stores.work.claim(CLAIM)
    elif request.param == "completed":
        for transition in (Transition.START, Transition.COMPLETE):
            change = factories.change(transition, operation.id)
            operation = (await store.apply(change)).operation
    pause(engine, operation)
    return await store.get(operation.id, factories.access_filter())


def test_no_set_contains_it():
    """An unknown status is neither active nor terminal."""
    known: frozenset[object] = ACTIVE | TERMINAL
    assert PAUSED not in known
    assert str(PAUSED) == "PAUSED"


@pytest.mark.parametrize("transition", EFFECTS)
@pytest.mark.parametrize("age", [timedelta(), LONG])
async def test_every_transition_is_refused(store, stored, paused, transition, age):
    """A transition is refused with the current status, before and after expire_time."""
    factories.age(stored.engine, paused.id, age)
    before = stored.everything(paused.id)
    with pytest.raises(IllegalTransition) as caught:
        await store.apply(factories.change(transition, paused.id))
    assert caught.value.status == "PAUSED"
    assert stored.everything(paused.id) == before


async def test_it_is_not_claimed(stores, stored, paused):
    """A claim does not take it."""
    before = stored.everything(paused.id)
    assert await stores.work.claim(claim(max_operations=10)) == []
    assert await stores.work.pending([factories.FUNCTION]) == []
    assert stored.everything(paused.id) == before


async def test_it_is_not_swept(stores, engine, stored, paused):
    """No sweep changes, removes or counts it, also after its expire_time."""
    factories.age(engine, paused.id, LONG)
    before = stored.everything(paused.id)
    assert await sweep(stores) == NOTHING
    for each in SWEEPS:
        assert await stores.sweeps.due(each) == 0
        assert await stores.sweeps.overdue(each, timedelta(), 10) == 0
    assert stored.everything(paused.id) == before


async def test_create_is_not_repeated_by_removing_it(store, engine, stored, paused):
    """A create with its request_id returns it, also after its expire_time."""
    factories.age(engine, paused.id, LONG)
    retry = factories.new_operation(request_id="r-1")
    result = await store.insert(new_operation_id(), retry)
    assert (result.replayed, result.operation.id) == (True, paused.id)
    assert result.operation.status == PAUSED
    assert stored.count() == 1


async def test_it_is_no_part_of_the_quota(store, paused):
    """It does not count against the quota."""
    result = await store.insert(new_operation_id(), factories.new_operation(quota=1))
    assert result.operation.id != paused.id


@pytest.mark.parametrize("age", [timedelta(), LONG])
async def test_every_read_shows_it(store, stores, engine, paused, age):
    """Every read returns it with its stored status."""
    factories.age(engine, paused.id, age)
    owner = factories.access_filter()
    found = await store.get(paused.id, owner)
    assert isinstance(found.status, UnknownStatus)
    assert found.status == PAUSED
    for full in (True, False):
        (listed,) = await factories.listed(store, owner, Selection(), None, 10, full=full)
        assert (listed.id, listed.status) == (paused.id, PAUSED)
    (snapshot,) = await store.status_snapshots([paused.id])
    assert (snapshot.status, snapshot.interruption(None)) == (PAUSED, None)
    assert await stores.history.revisions([paused.id]) == {paused.id: paused.revision}


async def test_lists_of_known_statuses_leave_it_out(store, paused):
    """A list with a filter of known statuses leaves it out."""
    selection = Selection(statuses=tuple(Status))
    assert (
        await factories.listed(store, factories.access_filter(), selection, None, 10, full=False)
        == []
    )
    assert paused.status == PAUSED


async def test_its_history_is_what_is_known_of_it(stores, stored, paused):
    """The status changes leave out a transition that only the newer release knows."""
    changes = await stores.history.status_changes(paused.id, after=0, before=100, limit=100)
    recorded = [event["revision"] for event in stored.events(paused.id)]
    assert [change.revision for change in changes] == recorded[:-1]


async def test_webhooks_of_it_are_sent(store, stores, engine):
    """The webhook of an earlier event has the status after that event."""
    operation = await factories.reach(store, Status.PROCESSING)
    pause(engine, operation)
    (claimed,) = await stores.deliveries.claim(
        DeliveryClaim(limit=10, per_host=10, lease=timedelta(seconds=30))
    )
    (listed,) = await stores.deliveries.deliveries(operation.owner, DeliverySelection(), None, 10)
    assert claimed.snapshot is not None
    assert claimed.snapshot.status == PAUSED
    assert b'"status":"PROCESSING"' in body_of(claimed, claimed.snapshot)
    assert listed.operation_id == operation.id
