"""The batcher: calls that arrive while a batch runs form the next one."""

import asyncio
import sqlite3
import threading
import time

import psycopg.errors
import pytest
import sqlalchemy as sa

from milepost import telemetry
from milepost.domain.errors import Overloaded, StoreUnavailable
from milepost.storage import batching
from milepost.storage.batching import Batcher
from milepost.storage.engine import open_engine
from milepost.storage.session import Session
from tests.waiting import until

QUEUE_TIMEOUT_S = 10
HELD_S = 0.02
"""Time for which a batch is held, to be seen in the wait of the next one."""
MANY = 1_000


class Insert:
    """A statement that stores numbers."""

    def run(self, cursor, rows):
        """Store each number."""
        for row in rows:
            cursor.execute("INSERT INTO numbers VALUES (?)", row)
        return []


INSERT = Insert()


class Work:
    """A run function that stores numbers in a table with unique rows, and that a test can hold."""

    def __init__(self):
        self.batches = []
        self.running = threading.Semaphore(0)
        self._permits = threading.Semaphore(MANY)

    def __call__(self, session, items):
        """Store the items, and return ten times each."""
        self.batches.append(list(items))
        self.running.release()
        assert self._permits.acquire(timeout=QUEUE_TIMEOUT_S)
        session.run(INSERT, [(item,) for item in items])
        return [item * 10 for item in items]

    def hold(self):
        """Hold further batches until `release`."""
        self._permits = threading.Semaphore(0)

    def release(self, batches=MANY):
        """Let `batches` more batches run."""
        self._permits.release(batches)

    async def started(self):
        """Wait until another batch has started."""
        assert await asyncio.to_thread(self.running.acquire, timeout=QUEUE_TIMEOUT_S)


@pytest.fixture
def work():
    """Work that is not held."""
    return Work()


@pytest.fixture
def engine(tmp_path):
    """The engine of a small database."""
    engine = open_engine(f"sqlite:///{tmp_path / 'small.db'}")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"))
    return engine


@pytest.fixture
async def batcher(engine, work):
    """A batcher on the small database."""
    batcher = Batcher("numbers", Session(engine))
    yield batcher
    work.release()
    await batcher.close()


def numbers(engine):
    """Return the stored numbers."""
    with engine.connect() as connection:
        return set(connection.execute(sa.text("SELECT n FROM numbers")).scalars())


def submit(batcher, work, *items, key=None):
    """Return the futures of the items."""
    return [batcher.submit(work, item, item if key is None else key) for item in items]


async def behind(batcher, work, *items, **options):
    """Return the futures of items that wait behind a held batch of the number 0."""
    work.hold()
    first = submit(batcher, work, 0)
    await work.started()
    return first + submit(batcher, work, *items, **options)


async def answered(futures):
    """Return the results or errors."""
    return await asyncio.gather(*futures, return_exceptions=True)


async def test_idle_batcher_takes_a_call_at_once(batcher, work):
    """A call to an idle batcher is a batch of its own."""
    assert [await batcher.submit(work, n, n) for n in (1, 2)] == [10, 20]
    assert work.batches == [[1], [2]]


async def test_what_arrives_meanwhile_is_the_next_batch(batcher, work, engine):
    """Calls that arrive while a batch runs share the next batch, in their order."""
    futures = await behind(batcher, work, 3, 1, 2)
    work.release()
    assert await answered(futures) == [0, 30, 10, 20]
    assert work.batches == [[0], [3, 1, 2]]
    assert numbers(engine) == {0, 1, 2, 3}


async def test_wait_for_the_session_is_observed_once_for_each_batch(batcher, work):
    """The wait of a batch is that of its first call, behind the batch before it."""

    def observed(what):
        name = f"milepost_batcher_wait_seconds_{what}"
        return telemetry.registry.get_sample_value(name, {"batcher": "numbers"})

    count, total = observed("count"), observed("sum")
    futures = await behind(batcher, work, 3, 1, 2)
    behind_since = time.monotonic()
    await until(lambda: time.monotonic() - behind_since > HELD_S)
    work.release()
    await answered(futures)
    assert observed("count") == count + 2
    assert observed("sum") - total >= HELD_S


async def test_equal_keys_never_share_a_batch(batcher, work):
    """Calls with equal keys run in separate batches, in their order; other calls do not wait."""
    futures = await behind(batcher, work, 1, 2, 3, key="same")
    futures += submit(batcher, work, 4)
    work.release()
    assert await answered(futures) == [0, 10, 20, 30, 40]
    assert work.batches == [[0], [1, 4], [2], [3]]


async def test_batches_have_a_limit(engine, work):
    """No batch has more than max_batch calls."""
    batcher = Batcher("numbers", Session(engine), max_batch=2)
    futures = await behind(batcher, work, 1, 2, 3, 4, 5)
    work.release()
    await answered(futures)
    await batcher.close()
    assert work.batches == [[0], [1, 2], [3, 4], [5]]


async def test_refused_item_fails_alone(batcher, work, engine):
    """A refused item fails alone; the others of its batch are stored once."""
    futures = await behind(batcher, work, 1, 0, 2)
    work.release()
    zero, one, again, two = await answered(futures)
    assert (zero, one, two) == (0, 10, 20)
    assert isinstance(again, Exception)
    assert not isinstance(again, StoreUnavailable)
    assert numbers(engine) == {0, 1, 2}
    assert work.batches == [[0], [1, 0, 2], [1], [0], [2]]


async def test_answers_may_be_errors(engine):
    """An exception in the results is raised for its caller only, and nothing runs again."""
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
    """The failure of one statement of a batch does not run another one again."""

    def broken(_session, items):
        raise LookupError(items)

    batcher = Batcher("mixed", Session(engine))
    zero_and_one = await behind(batcher, work, 1)
    failing = submit(batcher, broken, "a", "b")
    work.release()
    zero, one, a, b = await answered(zero_and_one + failing)
    await batcher.close()
    assert (zero, one) == (0, 10)
    assert [type(a), type(b)] == [LookupError, LookupError]
    assert work.batches == [[0], [1]]


async def test_call_given_up_before_it_is_taken(batcher, work, engine):
    """A call that is cancelled while it waits does not run."""
    futures = await behind(batcher, work, 1, 2)
    futures[1].cancel()
    await asyncio.sleep(0)
    work.release()
    found = await answered(futures)
    assert isinstance(found[1], asyncio.CancelledError)
    assert [found[0], found[2]] == [0, 20]
    assert work.batches == [[0], [2]]
    assert numbers(engine) == {0, 2}


async def test_call_given_up_after_it_is_taken(batcher, work, engine):
    """A call that is cancelled while it runs is still committed."""
    work.hold()
    future = submit(batcher, work, 1)[0]
    await work.started()
    future.cancel()
    await answered([future])
    work.release()
    assert await batcher.submit(work, 2, 2) == 20
    assert numbers(engine) == {1, 2}


async def test_hanging_work_is_not_waited_for(batcher, work, engine):
    """Calls fail within a second if the database hangs, and waiting calls do not run later."""
    futures = await behind(batcher, work, 1, 2)
    start = time.monotonic()
    assert {type(each) for each in await answered(futures)} == {StoreUnavailable}
    assert time.monotonic() - start < 1.0
    work.release()
    assert await batcher.submit(work, 3, 3) == 30
    assert numbers(engine) == {0, 3}


async def test_old_calls_are_told_beside_new_ones(batcher, work):
    """A call that waits for its key times out by its own arrival."""
    zero, *old = await behind(batcher, work, 1, 2, key="same")
    for call in batcher._waiting:
        call.arrival -= batching.QUEUE_TIMEOUT_S / 2
    (new,) = submit(batcher, work, 3)
    work.release(1)
    assert await zero == 0  # now 1 and 3 run, and 2 waits
    assert {type(each) for each in await answered(old)} == {StoreUnavailable}
    assert not new.done()
    work.release()
    assert await new == 30
    assert work.batches == [[0], [1, 3]]


async def watched(batcher):
    """Wait until the batcher has looked for calls that have waited too long."""
    before = batcher._watch_time
    await until(lambda: batcher._watch_time > before)


async def test_waiting_for_a_turn_is_no_timeout(engine, work):
    """Calls that restart their timeout fail only if the database stops answering other calls."""
    batcher = Batcher("numbers", Session(engine), max_batch=1, restarts_timeout=True)
    futures = await behind(batcher, work, 1, 2, 3)
    for number in (0, 1, 2):
        for call in batcher._waiting:
            call.arrival -= 0.6 * batching.QUEUE_TIMEOUT_S
        await watched(batcher)
        work.release(1)
        assert await futures[number] == 10 * number
    await work.started()
    assert type((await answered(futures[3:]))[0]) is StoreUnavailable
    work.release()
    await batcher.close()


async def test_too_many_calls(batcher, work, monkeypatch):
    """A call beyond MAX_WAITING is refused at once."""
    monkeypatch.setattr(batching, "MAX_WAITING", 3)
    futures = await behind(batcher, work, 1, 2, 3, key="same")
    with pytest.raises(Overloaded):
        await batcher.submit(work, 4, 4)
    work.release()
    assert await answered(futures) == [0, 10, 20, 30]


async def test_close_finishes_what_waits(batcher, work, engine):
    """A close finishes the waiting calls, and refuses new ones."""
    futures = await behind(batcher, work, 1, 1 + 1, key="same")
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await batcher.submit(work, 3, 3)
    work.release()
    await closing
    assert await answered(futures) == [0, 10, 20]
    assert numbers(engine) == {0, 1, 2}
    assert not batcher._thread.is_alive()


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


LATE_S = 1.2
"""A delay of the event loop beyond every timeout of a call."""


async def test_late_event_loop_is_not_the_database(batcher, work, engine):
    """Calls that wait while the event loop is late succeed, because the database has answered."""
    futures = submit(batcher, work, 0)
    futures += [future for value in (1, 2) for future in submit(batcher, work, value, key="same")]
    await asyncio.sleep(0)  # the first batch runs
    time.sleep(LATE_S)  # noqa: ASYNC251 - the delay under test
    assert await answered(futures) == [0, 10, 20]
    assert numbers(engine) == {0, 1, 2}


async def test_late_process_does_not_blame_the_database(batcher, work):
    """A delay in which the database owes an answer counts no more than one interval."""
    work.hold()
    (future,) = submit(batcher, work, 1)
    await work.started()
    time.sleep(LATE_S)  # noqa: ASYNC251 - the delay under test
    work.release()
    assert await future == 10
