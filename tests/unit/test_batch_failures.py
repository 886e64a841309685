"""Failures of batches: what runs again, and the session after a failure."""

import sqlite3

import psycopg.errors
import pytest
import sqlalchemy as sa

from milepost.domain.errors import StoreUnavailable
from milepost.storage.batching import Batcher
from milepost.storage.session import Session
from tests.unit.batches import answered, numbers, open_small, submit


@pytest.fixture
def engine(tmp_path):
    """The engine of a small database."""
    return open_small(tmp_path)


class Failing:
    """A run function that fails a number of times before it succeeds."""

    def __init__(self, error, times):
        self.error, self.failures_left, self.runs = error, times, 0

    def __call__(self, _session, items):
        """Fail, or return the items."""
        self.runs += 1
        if self.failures_left:
            self.failures_left -= 1
            raise self.error
        return items


@pytest.mark.parametrize(
    ("error", "times", "repeatable", "result", "runs"),
    [
        (psycopg.errors.DeadlockDetected(), 2, False, 1, 3),
        (psycopg.errors.DeadlockDetected(), 3, False, StoreUnavailable, 3),
        (psycopg.errors.SerializationFailure(), 1, True, 1, 2),
        (psycopg.OperationalError(), 1, True, 1, 2),
        (psycopg.OperationalError(), 3, True, StoreUnavailable, 3),
        (psycopg.OperationalError(), 1, False, StoreUnavailable, 1),
        (psycopg.errors.AdminShutdown(), 1, False, StoreUnavailable, 1),
        (psycopg.errors.LockNotAvailable(), 1, False, StoreUnavailable, 1),
        (psycopg.errors.UniqueViolation(), 1, True, psycopg.errors.UniqueViolation, 1),
    ],
)
async def test_what_runs_again(engine, error, times, repeatable, result, runs):  # noqa: PLR0917
    """Aborted transactions run again; after a lost connection, only repeatable ones do."""
    work = Failing(error, times)
    batcher = Batcher("failing", Session(engine, read_only=True), repeatable=repeatable)
    (found,) = await answered(submit(batcher, work, 1))
    await batcher.close()
    assert work.runs == runs
    assert found == result or type(found) is result


async def test_unavailable_is_not_tried_one_by_one(engine):
    """The whole batch fails at once when the database is away."""
    work = Failing(psycopg.OperationalError(), 100)
    batcher = Batcher("failing", Session(engine, read_only=True))
    found = await answered(submit(batcher, work, 1, 2, 3))
    await batcher.close()
    assert {type(each) for each in found} == {StoreUnavailable}
    assert work.runs == 1


async def test_failed_transaction_leaves_a_usable_session(engine):
    """A failed transaction is rolled back, and the session remains usable."""
    session = Session(engine)

    def insert(*values):
        with session.transaction() as cursor:
            for value in values:
                cursor.execute("INSERT INTO numbers VALUES (?)", [value])

    insert(1)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        insert(2, 1)
    insert(3)
    session.reset()
    assert numbers(engine) == {1, 3}


async def test_failed_commit_leaves_a_usable_session(engine):
    """A refused commit is rolled back, and the session remains usable."""
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE parts (n INTEGER REFERENCES numbers (n)"
                " DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    session = Session(engine)
    session.cursor.execute("PRAGMA foreign_keys = ON")
    with (
        pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"),
        session.transaction() as cursor,
    ):
        cursor.execute("INSERT INTO parts VALUES (7)")
    with session.transaction() as cursor:
        cursor.execute("INSERT INTO numbers VALUES (7)")
    session.reset()
    assert numbers(engine) == {7}
