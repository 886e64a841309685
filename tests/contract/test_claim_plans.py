"""The plans of claims where one owner has 99 % of the operations, most of them claimed before."""

import random
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.storage.claim_statement import claim_statement
from milepost.storage.dialects import pairs_json
from milepost.storage.engine import open_engine
from milepost.storage.pending_work import pending_statement
from milepost.storage.schema import upgrade
from milepost.storage.session import Session
from milepost.storage.tables import operations
from tests import factories
from tests.contract.plan import prepared

ROWS = 20_000
FUNCTIONS = ("video.transcode", *(f"function-{n}" for n in range(19)))


def fill(engine):
    """Insert the operations of a busy owner, three quarters claimed, and a few of idle owners."""
    generator = random.Random(1)  # noqa: S311 - reproducible
    rows = [
        factories.row(
            Status.PROCESSING if n < 0.75 * ROWS else Status.PENDING,
            owner=f"idle-{n % 7}" if n % 100 == 0 else "busy",
            function=FUNCTIONS[0] if n % 2 else generator.choice(FUNCTIONS),
            create_time=factories.LONG_AGO + timedelta(seconds=n),
            start_time=factories.LONG_AGO + timedelta(days=1) if n < 0.75 * ROWS else None,
        )
        for n in range(ROWS)
    ]
    with engine.begin() as connection:
        factories.insert(connection, operations, rows)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))


@pytest.fixture(scope="module")
def engine(shared_url):
    """The database, for all tests of this module."""
    upgrade(shared_url)
    engine = open_engine(shared_url)
    fill(engine)
    return engine


@pytest.fixture
def session(engine):
    """A session whose plans are pinned, as that of claims."""
    session = Session(engine, pinned_plans=True)
    yield session
    session.reset()


@pytest.mark.parametrize("functions", [FUNCTIONS[:1], FUNCTIONS], ids=["one", "many"])
@pytest.mark.parametrize("max_operations", [1, 100])
@pytest.mark.parametrize("count", [1, 64])
def test_claims(session, functions, max_operations, count):
    """The index of pending operations alone finds the work of one claim, or of several."""
    pairs = pairs_json((function, "aardvark") for function in functions)
    rows = [
        (
            *("wally", None, None, number, pairs if number == 0 else None, 32),
            *(1 + number * max_operations, (number + 1) * max_operations, 1, 1_000_000),
            *("wally", timedelta(seconds=30)),
        )
        for number in range(count)
    ]
    plan = prepared(session, claim_statement(session.database), rows)
    assert plan.scans == []
    assert plan.indexes == {"operations_pending_idx"}, plan.steps
    assert plan.uses("operations_pkey")
    # SQLite visits no more owners than are wanted.
    assert "MATERIALIZE turn" not in plan.steps


def test_search_for_work(session):
    """The index of pending operations alone finds the functions that have work."""
    pairs = pairs_json((function, "") for function in FUNCTIONS)
    plan = prepared(session, pending_statement(session.database), [(pairs,)])
    assert plan.scans == []
    assert plan.sorts == []
    assert plan.indexes == {"operations_pending_idx"}
