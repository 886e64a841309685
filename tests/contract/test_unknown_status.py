"""Operations in a status that only a newer release knows: shown, and otherwise left alone."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.delivery import DeliverySelection
from milepost.domain.errors import IllegalTransition
from milepost.domain.operation import Status, UnknownStatus, new_operation_id
from milepost.domain.selection import Selection
from milepost.domain.transitions import ACTIVE, TERMINAL, Transition
from milepost.storage.statements import EFFECTS
from milepost.storage.tables import events, operations
from milepost.webhooks.body import body_of
from tests import factories
from tests.contract.test_claims import CLAIM, claim
from tests.contract.test_sweeps import NOTHING, SWEEPS, sweep

PAUSED = UnknownStatus("PAUSED")
LONG = timedelta(days=30)
"""Longer than every lease and every time to live."""


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
    """The newer release pauses the operation, and records that."""
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
    """The operation, which had begun in one of several ways."""
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
    """An unknown status is neither active nor terminal, and equal to none that is known."""
    known: frozenset[object] = ACTIVE | TERMINAL
    assert PAUSED not in known
    assert str(PAUSED) == "PAUSED"


@pytest.mark.parametrize("transition", EFFECTS)
@pytest.mark.parametrize("age", [timedelta(), LONG])
async def test_every_transition_is_refused(store, stored, paused, transition, age):
    """A transition is refused with the status found, within the time to live and after it."""
    factories.age(stored.engine, paused.id, age)
    before = stored.everything(paused.id)
    with pytest.raises(IllegalTransition) as caught:
        await store.apply(factories.change(transition, paused.id))
    assert caught.value.status == "PAUSED"
    assert stored.everything(paused.id) == before


async def test_it_is_not_claimed(stores, stored, paused):
    """It is no work, for nobody who asks for its function."""
    before = stored.everything(paused.id)
    assert await stores.work.claim(claim(max_operations=10)) == []
    assert await stores.work.pending([factories.FUNCTION]) == []
    assert stored.everything(paused.id) == before


async def test_it_is_not_swept(stores, engine, stored, paused):
    """However late it is, no sweep changes or removes it, and none counts it."""
    factories.age(engine, paused.id, LONG)
    before = stored.everything(paused.id)
    assert await sweep(stores) == NOTHING
    for transition in SWEEPS:
        assert await stores.sweeps.due(transition) == 0
        assert await stores.sweeps.overdue(transition, timedelta(), 10) == 0
    assert stored.everything(paused.id) == before


async def test_create_is_not_repeated_by_removing_it(store, engine, stored, paused):
    """Its request_id is taken as long as it is there, however late it is."""
    factories.age(engine, paused.id, LONG)
    repeated = factories.new_operation(request_id="r-1")
    outcome = await store.insert(new_operation_id(), repeated)
    assert (outcome.replayed, outcome.operation.id) == (True, paused.id)
    assert outcome.operation.status == PAUSED
    assert stored.count() == 1


async def test_it_is_no_part_of_the_quota(store, paused):
    """It is not counted as active: this release does not know whether it is."""
    outcome = await store.insert(new_operation_id(), factories.new_operation(quota=1))
    assert outcome.operation.id != paused.id


@pytest.mark.parametrize("age", [timedelta(), LONG])
async def test_every_read_shows_it(store, stores, engine, paused, age):
    """Reads show it with the status that is stored, and fail for nobody."""
    factories.age(engine, paused.id, age)
    mine = factories.access_filter()
    found = await store.get(paused.id, mine)
    assert isinstance(found.status, UnknownStatus)
    assert found.status == PAUSED
    for full in (True, False):
        (listed,) = await store.list(mine, Selection(), None, 10, full=full)
        assert (listed.id, listed.status) == (paused.id, PAUSED)
    (snapshot,) = await store.status_snapshots([paused.id])
    assert (snapshot.status, snapshot.interruption(None)) == (PAUSED, None)
    assert await stores.history.revisions([paused.id]) == {paused.id: paused.revision}


async def test_lists_of_known_statuses_leave_it_out(store, paused):
    """It is in no list of operations of certain statuses."""
    selection = Selection(statuses=tuple(Status))
    assert await store.list(factories.access_filter(), selection, None, 10, full=False) == []
    assert paused.status == PAUSED


async def test_its_history_is_what_is_known_of_it(stores, stored, paused):
    """A change that only the newer release knows is left out of the changes of status."""
    changes = await stores.history.status_changes(paused.id, after=0, before=100, limit=100)
    recorded = [event["revision"] for event in stored.events(paused.id)]
    assert [change.revision for change in changes] == recorded[:-1]


async def test_webhooks_of_it_are_sent(store, stores, engine):
    """A webhook of what happened before it was paused tells of the status it led to."""
    operation = await factories.reach(store, Status.PROCESSING)
    pause(engine, operation)
    (claimed,) = await stores.deliveries.claim(
        limit=10, per_host=10, busy=(), lease=timedelta(seconds=30)
    )
    (listed,) = await stores.deliveries.deliveries(operation.owner, DeliverySelection(), None, 10)
    assert claimed.snapshot is not None
    assert claimed.snapshot.status == PAUSED
    assert b'"status":"PROCESSING"' in body_of(claimed, claimed.snapshot)
    assert listed.operation_id == operation.id
