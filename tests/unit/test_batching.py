"""Batches: what arrives while one runs forms the next one, and each caller is answered."""

import asyncio
import sqlite3
import threading
import time

import psycopg.errors
import pytest
import sqlalchemy as sa

from milepost.domain.errors import Overloaded, StoreUnavailable
from milepost.storage import batching
from milepost.storage.batching import Batcher
from milepost.storage.engine import open_engine
from milepost.storage.session import Session

QUEUE_TIMEOUT_S = 10
MANY = 1_000


class Insert:
    """The statement that stores numbers."""

    def run(self, cursor, rows):
        """Store each."""
        for row in rows:
            cursor.execute("INSERT INTO numbers VALUES (?)", row)
        return []


INSERT = Insert()


class Work:
    """Stores numbers in a table that refuses the same one twice, when it is let."""

    def __init__(self):
        self.batches = []
        self.taken = threading.Semaphore(0)
        self._permits = threading.Semaphore(MANY)

    def __call__(self, session, items):
        """Store the items, and answer with ten times each."""
        self.batches.append(list(items))
        self.taken.release()
        assert self._permits.acquire(timeout=QUEUE_TIMEOUT_S)
        session.run(INSERT, [(item,) for item in items])
        return [item * 10 for item in items]

    def hold(self):
        """No further batch is done until it is let."""
        self._permits = threading.Semaphore(0)

    def let(self, batches=MANY):
        """So many batches more may be done."""
        self._permits.release(batches)

    async def started(self):
        """Another batch was taken."""
        assert await asyncio.to_thread(self.taken.acquire, timeout=QUEUE_TIMEOUT_S)


@pytest.fixture
def work():
    """Work that is let."""
    return Work()


@pytest.fixture
def engine(tmp_path):
    """A small database."""
    engine = open_engine(f"sqlite:///{tmp_path / 'small.db'}")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"))
    return engine


@pytest.fixture
async def batcher(engine, work):
    """A batcher."""
    batcher = Batcher("numbers", Session(engine))
    yield batcher
    work.let()
    await batcher.close()


def numbers(engine):
    """The numbers that are stored."""
    with engine.connect() as connection:
        return set(connection.execute(sa.text("SELECT n FROM numbers")).scalars())


def submit(batcher, work, *items, key=None):
    """The answers to come, to the items."""
    return [batcher.submit(work, item, item if key is None else key) for item in items]


async def behind(batcher, work, *items, **options):
    """The answers to come, to items that wait behind a batch of the number 0, which is not let."""
    work.hold()
    first = submit(batcher, work, 0)
    await work.started()
    return first + submit(batcher, work, *items, **options)


async def answered(answers):
    """The answers, or the errors."""
    return await asyncio.gather(*answers, return_exceptions=True)


async def test_idle_batcher_takes_a_call_at_once(batcher, work):
    """A call that finds the batcher idle is a batch of its own."""
    assert [await batcher.submit(work, n, n) for n in (1, 2)] == [10, 20]
    assert work.batches == [[1], [2]]


async def test_what_arrives_meanwhile_is_the_next_batch(batcher, work, engine):
    """What arrives while a batch runs is taken together, in the order in which it came."""
    answers = await behind(batcher, work, 3, 1, 2)
    work.let()
    assert await answered(answers) == [0, 30, 10, 20]
    assert work.batches == [[0], [3, 1, 2]]
    assert numbers(engine) == {0, 1, 2, 3}


async def test_equal_keys_never_share_a_batch(batcher, work):
    """Calls of one key run one after the other, in their order; others do not wait for them."""
    answers = await behind(batcher, work, 1, 2, 3, key="same")
    answers += submit(batcher, work, 4)
    work.let()
    assert await answered(answers) == [0, 10, 20, 30, 40]
    assert work.batches == [[0], [1, 4], [2], [3]]


async def test_batches_have_a_limit(engine, work):
    """No batch is larger than it may be."""
    batcher = Batcher("numbers", Session(engine), max_batch=2)
    answers = await behind(batcher, work, 1, 2, 3, 4, 5)
    work.let()
    await answered(answers)
    await batcher.close()
    assert work.batches == [[0], [1, 2], [3, 4], [5]]


async def test_refused_item_fails_alone(batcher, work, engine):
    """What the database refuses fails its own caller; its neighbours are stored, each once."""
    answers = await behind(batcher, work, 1, 0, 2)
    work.let()
    zero, one, again, two = await answered(answers)
    assert (zero, one, two) == (0, 10, 20)
    assert isinstance(again, Exception)
    assert not isinstance(again, StoreUnavailable)
    assert numbers(engine) == {0, 1, 2}
    assert work.batches == [[0], [1, 0, 2], [1], [0], [2]]


async def test_answers_may_be_errors(engine):
    """An error that is an answer is raised for its caller alone, and nothing runs again."""
    runs = []

    def work(_session, items):
        runs.append(items)
        return [ValueError(item) if item % 2 else item for item in items]

    batcher = Batcher("odd", Session(engine))
    found = await answered(submit(batcher, work, 1, 2, 3))
    await batcher.close()
    assert [type(each) for each in found] == [ValueError, int, ValueError]
    assert len(runs) == 1


async def test_statements_of_a_batch_share_no_fate(engine, work):
    """If one statement of a batch fails, what another has done is not done again."""

    def broken(_session, items):
        raise LookupError(items)

    batcher = Batcher("mixed", Session(engine))
    zero_and_one = await behind(batcher, work, 1)
    failing = submit(batcher, broken, "a", "b")
    work.let()
    zero, one, a, b = await answered(zero_and_one + failing)
    await batcher.close()
    assert (zero, one) == (0, 10)
    assert [type(a), type(b)] == [LookupError, LookupError]
    assert work.batches == [[0], [1]]


async def test_call_given_up_before_it_is_taken(batcher, work, engine):
    """A call whose caller left before it was taken is never made."""
    answers = await behind(batcher, work, 1, 2)
    answers[1].cancel()
    await asyncio.sleep(0)
    work.let()
    found = await answered(answers)
    assert isinstance(found[1], asyncio.CancelledError)
    assert [found[0], found[2]] == [0, 20]
    assert work.batches == [[0], [2]]
    assert numbers(engine) == {0, 2}


async def test_call_given_up_after_it_is_taken(batcher, work, engine):
    """A call whose caller left after it was taken is made all the same."""
    work.hold()
    answer = submit(batcher, work, 1)[0]
    await work.started()
    answer.cancel()
    await answered([answer])
    work.let()
    assert await batcher.submit(work, 2, 2) == 20
    assert numbers(engine) == {1, 2}


async def test_hanging_work_is_not_waited_for(batcher, work, engine):
    """Callers are told within a second; what they asked is not made later unless it was taken."""
    answers = await behind(batcher, work, 1, 2)
    start = time.monotonic()
    assert {type(each) for each in await answered(answers)} == {StoreUnavailable}
    assert time.monotonic() - start < 1.0
    work.let()
    assert await batcher.submit(work, 3, 3) == 30
    assert numbers(engine) == {0, 3}


async def test_old_calls_are_told_beside_new_ones(batcher, work):
    """A call that waits for its key is told in time, however new the batch is that it waits for."""
    zero, *old = await behind(batcher, work, 1, 2, key="same")
    for call in batcher._waiting:
        call.arrival -= batching.QUEUE_TIMEOUT_S / 2
    (new,) = submit(batcher, work, 3)
    work.let(1)
    assert await zero == 0  # now 1 and 3 run, and 2 waits
    assert {type(each) for each in await answered(old)} == {StoreUnavailable}
    assert not new.done()
    work.let()
    assert await new == 30
    assert work.batches == [[0], [1, 3]]


async def test_too_many_calls(batcher, work, monkeypatch):
    """What is more than a batcher holds is refused at once, whatever its key."""
    monkeypatch.setattr(batching, "MAX_WAITING", 3)
    answers = await behind(batcher, work, 1, 2, 3, key="same")
    with pytest.raises(Overloaded):
        await batcher.submit(work, 4, 4)
    work.let()
    assert await answered(answers) == [0, 10, 20, 30]


async def test_close_finishes_what_waits(batcher, work, engine):
    """A batcher that is closed first does what it was asked, and then takes nothing more."""
    answers = await behind(batcher, work, 1, 1 + 1, key="same")
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await batcher.submit(work, 3, 3)
    work.let()
    await closing
    assert await answered(answers) == [0, 10, 20]
    assert numbers(engine) == {0, 1, 2}
    assert not batcher._thread.is_alive()


class Failing:
    """Work that fails a number of times before it succeeds."""

    def __init__(self, error, times):
        self.error, self.left, self.runs = error, times, 0

    def __call__(self, _session, items):
        """Fail, or answer with the items."""
        self.runs += 1
        if self.left:
            self.left -= 1
            raise self.error
        return items


@pytest.mark.parametrize(
    ("error", "times", "repeatable", "answer", "runs"),
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
async def test_what_runs_again(engine, error, times, repeatable, answer, runs):  # noqa: PLR0917
    """What the database undid runs again; after a lost connection, only what may be repeated."""
    work = Failing(error, times)
    batcher = Batcher("failing", Session(engine, read_only=True), repeatable=repeatable)
    (found,) = await answered(submit(batcher, work, 1))
    await batcher.close()
    assert work.runs == runs
    assert found == answer or type(found) is answer


async def test_unavailable_is_not_tried_one_by_one(engine):
    """When the database is away a whole batch is told so at once."""
    work = Failing(psycopg.OperationalError(), 100)
    batcher = Batcher("failing", Session(engine, read_only=True))
    found = await answered(submit(batcher, work, 1, 2, 3))
    await batcher.close()
    assert {type(each) for each in found} == {StoreUnavailable}
    assert work.runs == 1


async def test_failed_transaction_leaves_a_usable_session(engine):
    """A transaction that fails is undone, and the session goes on with the next."""
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
    """A commit that the database refuses is undone, and the session goes on with the next."""
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
