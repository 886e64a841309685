"""A claim on PostgreSQL that locks a newer version of a row than the one it has found.

On SQLite there is no such moment: a claim has the database for itself.
"""

import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.storage.claim_statement import claim_statement
from milepost.storage.dialects import pairs_json
from milepost.storage.engine import open_engine
from milepost.storage.session import Session
from milepost.storage.tables import operations
from tests import factories
from tests.waiting import eventually

_GATE = 7
"""The advisory lock at which the claim waits."""
_WAITING = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


class Gate:
    """A cursor whose claims wait at the gate between their search and their locks."""

    def __init__(self, session):
        self._cursor = session.cursor

    def execute(self, sql, parameters=()):
        """Run the claim with one more condition on the rows that it locks."""
        end = sql.rindex("ORDER BY", 0, sql.index("FOR UPDATE OF free"))
        gate = f"AND (SELECT count(pg_advisory_xact_lock_shared({_GATE}))) = 1 "
        self._cursor.execute(sql[:end] + gate + sql[end:], parameters)

    def fetchall(self):
        """Return the claimed rows."""
        return self._cursor.fetchall()

    def executemany(self, sql, parameters):
        """Run the claim for each set of parameters."""
        for each in parameters:
            self.execute(sql, each)


@pytest.fixture
def engine(postgres_url):
    """The engine of a fresh database."""
    engine = open_engine(postgres_url)
    yield engine
    engine.dispose()


def claimed_beside(engine, change):
    """Return the rows of a claim while `change` is made between its search and its locks."""
    session = Session(engine, pinned_plans=True)
    functions = pairs_json([(factories.FUNCTION, "")])
    selection = (0, functions, 1, 1, 1, 1, 1_000_000)
    inputs = ("wally", None, None, *selection, "wally", timedelta(seconds=30))
    statement = claim_statement(session.database)
    found = []
    claim = threading.Thread(target=lambda: found.extend(statement.run(Gate(session), [inputs])))
    with engine.connect() as holder:
        holder.execute(sa.text(f"SELECT pg_advisory_xact_lock({_GATE})"))
        claim.start()
        eventually(lambda: holder.scalar(_WAITING), within=5, what="the claim waits at the gate")
        with engine.begin() as connection:
            connection.execute(sa.update(operations).values(change))
    claim.join(5)
    assert not claim.is_alive()
    session.reset()
    return found


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({"next_attempt_time": factories.FAR_AWAY, "failed_attempts": 1}, 0),
        ({"progress_message": "not a reason to leave it"}, 1),
    ],
)
def test_claim_leaves_what_has_failed_meanwhile(engine, change, count):
    """A claim does not take an operation that began and failed since, and waits for its pause."""
    with engine.begin() as connection:
        connection.execute(sa.insert(operations), [factories.row()])
    assert len(claimed_beside(engine, change)) == count
