"""Races on one replica and on two: one call wins, and the others get exact errors."""

from collections import Counter
from itertools import cycle

import pytest
import sqlalchemy as sa

from milepost.domain.errors import IllegalTransition, LostRace, ProgressDecrease
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.transitions import TERMINAL, Transition, TransitionResult
from tests import factories
from tests.contract.stored import answers

ENDS = (Transition.COMPLETE, Transition.FAIL, Transition.CANCEL)


@pytest.fixture(params=["one replica", "two replicas"])
def replicas(request, store, replica):
    """The replicas that take part in a race."""
    return [store] if request.param == "one replica" else [store, replica]


def race(replicas, changes):
    """Return the results of concurrent changes, spread over the replicas."""
    return answers(*(each.apply(c) for each, c in zip(cycle(replicas), changes, strict=False)))


async def test_one_end(replicas, stored):
    """Of concurrent ends exactly one succeeds, and the errors of the others name its status."""
    for _ in range(4):
        operation = await factories.reach(replicas[0], Status.PROCESSING)
        found = await race(replicas, [factories.change(m, operation.id) for m in ENDS * 4])
        (winner,) = [result for result in found if isinstance(result, TransitionResult)]
        losers = [result for result in found if result is not winner]
        end = winner.operation.status
        assert [(type(loser), loser.status) for loser in losers] == [(IllegalTransition, end)] * 11
        assert await replicas[0].get(operation.id, factories.access_filter()) == winner.operation
        assert winner.operation.revision == operation.revision + 1
        ends = [e for e in stored.events(operation.id) if e["revision"] > operation.revision]
        assert len(ends) == 1
        assert len(stored.deliveries(operation.id)) == 2  # started, ended


async def test_one_start(replicas, stored):
    """Of concurrent starts exactly one succeeds."""
    operation = await factories.create(replicas[0])
    starts = [factories.change(Transition.START, operation.id, worker=f"w-{n}") for n in range(10)]
    found = await race(replicas, starts)
    (winner,) = [result for result in found if isinstance(result, TransitionResult)]
    assert [type(result) for result in found].count(IllegalTransition) == 9
    row = stored.operation(operation.id)
    assert (row["attempt"], row["worker"]) == (1, winner.operation.worker)


async def test_one_repetition(replicas, stored):
    """Of concurrent calls with one request_id, one is made and the others are replayed."""
    operation = await factories.reach(replicas[0], Status.PROCESSING)
    complete = factories.change(Transition.COMPLETE, operation.id, request_id="r-1")
    found = await race(replicas, [complete] * 8)
    assert Counter(result.replayed for result in found) == {False: 1, True: 7}
    assert len(stored.events(operation.id)) == 3


async def test_larger_progress_wins(replicas):
    """The larger of two concurrent reports of progress is kept, in either order."""
    for values in ((0.6, 0.7), (0.7, 0.6)) * 4:
        operation = await factories.reach(replicas[0], Status.PROCESSING)
        found = await race(
            replicas,
            [factories.change(Transition.PROGRESS, operation.id, progress=v) for v in values],
        )
        assert {type(result) for result in found} <= {TransitionResult, ProgressDecrease}
        assert (await replicas[0].get(operation.id, factories.access_filter())).progress == 0.7


async def test_cancelled_never_starts(replicas, stored):
    """An operation that is started and cancelled concurrently ends cancelled."""
    for transitions in (
        (Transition.START, Transition.CANCEL),
        (Transition.CANCEL, Transition.START),
    ) * 4:
        operation = await factories.create(replicas[0])
        await race(
            replicas, [factories.change(transition, operation.id) for transition in transitions]
        )
        types = [event["type"] for event in stored.events(operation.id)]
        assert types[-1] == "operation.cancelled"
        assert stored.operation(operation.id)["status"] == Status.CANCELLED


async def test_progress_never_reopens(replicas, stored):
    """Progress that races a cancel never follows it."""
    operation = await factories.reach(replicas[0], Status.PROCESSING)
    reports = [factories.change(Transition.PROGRESS, operation.id) for _ in range(10)]
    changes = [*reports[:5], factories.change(Transition.CANCEL, operation.id), *reports[5:]]
    found = await race(replicas, changes)
    changed = [result for result in found if isinstance(result, TransitionResult)]
    row = stored.operation(operation.id)
    assert (row["status"], row["revision"]) == (Status.CANCELLED, 2 + len(changed))
    assert max(result.operation.revision for result in changed) == row["revision"]


async def test_every_acknowledged_move_counts_once(replicas, stored):
    """The revision rises by exactly the number of acknowledged transitions."""
    ids = [(await factories.create(replicas[0])).id for _ in range(8)]
    transitions = (
        Transition.START,
        Transition.PROGRESS,
        Transition.PROGRESS,
        Transition.COMPLETE,
        Transition.FAIL,
        Transition.CANCEL,
    )
    changes = [factories.change(transition, each) for transition in transitions * 2 for each in ids]
    found = await race(replicas, changes)
    changed = Counter(a.operation.id for a in found if isinstance(a, TransitionResult))
    assert {type(a) for a in found} <= {TransitionResult, IllegalTransition}
    for each in ids:
        assert stored.operation(each)["revision"] == 1 + changed[each]
        assert stored.operation(each)["status"] in TERMINAL


async def test_opposite_creates_do_not_lock_each_other_up(store, replica, stored):
    """Creates with the same request_ids in opposite orders on two replicas do not deadlock."""
    new_operations = [factories.new_operation(request_id=f"r-{n}") for n in range(20)]
    found = await answers(
        *(store.insert(new_operation_id(), new_operation) for new_operation in new_operations),
        *(
            replica.insert(new_operation_id(), new_operation)
            for new_operation in reversed(new_operations)
        ),
    )
    assert Counter(result.replayed for result in found) == {False: 20, True: 20}
    assert stored.count() == 20


async def test_lost_races_end(store, engine, stored):
    """A transition that loses every race fails after three tries."""
    operation = await factories.create(store)
    before = stored.everything(operation.id)
    overtake(engine)
    with pytest.raises(LostRace) as caught:
        await store.apply(factories.change(Transition.START, operation.id))
    assert caught.value.facts == {"operation_id": operation.id, "tries": "3"}
    assert stored.everything(operation.id) == before


OVERTAKE = {
    "sqlite": [
        "CREATE TRIGGER overtake BEFORE UPDATE ON operations BEGIN SELECT RAISE(IGNORE); END",
    ],
    "postgresql": [
        "CREATE FUNCTION overtake() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        """CREATE TRIGGER overtake BEFORE UPDATE ON operations
        FOR EACH ROW EXECUTE FUNCTION overtake()""",
    ],
}


def overtake(engine):
    """Make every update find no row, as if a concurrent one came first."""
    with engine.begin() as connection:
        for statement in OVERTAKE[engine.dialect.name]:
            connection.execute(sa.text(statement))
