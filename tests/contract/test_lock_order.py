"""Replicas on PostgreSQL lock the rows of a batch in one common order."""

import asyncio
from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from milepost.domain.errors import IllegalTransition
from milepost.domain.operation import Status
from milepost.domain.transitions import Transition, TransitionResult
from tests import factories
from tests.contract.stored import answers
from tests.waiting import until

WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture
def database_url(postgres_url):
    """The URL of a PostgreSQL database: SQLite has one lock, and so no order of locks."""
    return postgres_url


@pytest.fixture
def waiting(engine):
    """A function that returns the number of sessions that wait for a lock."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield lambda: connection.execute(WAITING).scalar_one()


async def test_batches_in_opposite_orders(store, replica, stored, waiting):
    """Two replicas that change the same operations in opposite orders do not deadlock."""
    ids = sorted([(await factories.create(store)).id for _ in range(4)])
    gates = [(await factories.create(store)).id for _ in range(2)]
    low, high, *last = ids
    batches = [
        (
            store,
            gates[0],
            [(Transition.START, high), (Transition.START, last[0]), (Transition.PROGRESS, low)],
        ),
        (
            replica,
            gates[1],
            [(Transition.START, low), (Transition.START, last[1]), (Transition.PROGRESS, high)],
        ),
    ]
    calls = []

    def call(each, transition, operation_id):
        change = factories.change(transition, operation_id)
        calls.append(asyncio.create_task(each.apply(change)))

    with ExitStack() as held:
        for operation_id in last:
            held.enter_context(stored.held(operation_id))
        # Calls that arrive while a replica waits for its gate form its next batch.
        with stored.held(gates[0]), stored.held(gates[1]):
            for each, gate, _ in batches:
                call(each, Transition.START, gate)
            await until(lambda: waiting() == 2)
            for each, _, transitions in batches:
                for transition, operation_id in transitions:
                    call(each, transition, operation_id)
            await until(
                lambda: all(len(each._batchers.writes._waiting) == 3 for each, *_ in batches)
            )
        await until(lambda: calls[0].done() and calls[1].done() and waiting() == 2)
    found = await answers(*calls)
    # Progress may have started an operation before its start.
    assert {type(answer) for answer in found} <= {TransitionResult, IllegalTransition}
    assert {stored.operation(each)["status"] for each in ids} == {Status.PROCESSING}
