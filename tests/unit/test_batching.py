"""The batcher: calls that arrive while a batch runs form the next one."""

import asyncio
import time

import pytest

from milepost import telemetry
from milepost.domain.errors import Overloaded, StoreUnavailable
from milepost.storage import batching
from milepost.storage.batching import Batcher
from milepost.storage.session import Session
from tests.machine import slowdown
from tests.unit.batches import Work, answered, behind, numbers, open_small, submit
from tests.waiting import until

HELD_S = 0.02
"""Time for which a batch is held, to be seen in the wait of the next one."""


@pytest.fixture
def work():
    """Work that is not held."""
    return Work()


@pytest.fixture
def engine(tmp_path):
    """The engine of a small database."""
    return open_small(tmp_path)


@pytest.fixture
async def batcher(engine, work):
    """A batcher on the small database."""
    batcher = Batcher("numbers", Session(engine))
    yield batcher
    work.release()
    await batcher.close()


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
    assert time.monotonic() - start < 1.0 * slowdown()
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
