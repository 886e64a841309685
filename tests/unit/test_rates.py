"""Token buckets of the process, and the allowances of principals."""

import time

import pytest

from milepost.access.token_buckets import LocalBuckets
from milepost.domain.rates import MAX_COUNT, NAMES, Allowance, Rate, RateLimitClass, read_allowances

KEY = ("creates", "alice")
OTHER = ("creates", "bob")
RATE = Rate(count=100)


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock():
    """A stopped clock."""
    return Clock()


@pytest.fixture
def buckets(clock):
    """Buckets without an entry, so that every bucket is full."""
    return LocalBuckets(clock=clock)


async def takes(buckets, count, key=KEY, rate=RATE):
    """Return how many of `count` tries were allowed."""
    return [await buckets.take(key, rate) for _ in range(count)].count(0)


async def test_as_many_as_the_rate_at_once(buckets):
    """A rate of 100 in 60 s allows 100 at once, and refuses the 101st."""
    assert await takes(buckets, 101) == 100
    assert await buckets.take(KEY, RATE) > 0


async def test_all_again_after_the_period(buckets, clock):
    """After the period the same number is allowed again."""
    await takes(buckets, 100)
    clock.now += 60.0
    assert await takes(buckets, 101) == 100


async def test_buckets_are_independent(buckets):
    """An empty bucket does not affect the others."""
    await takes(buckets, 101)
    assert await takes(buckets, 101, OTHER) == 100


@pytest.mark.parametrize("count", [1, 7, 30, 100, 6_000, 10**9])
async def test_the_wait_is_exact(buckets, clock, count):
    """A try after the returned wait is allowed, and an earlier one is refused."""
    rate = Rate(count=count)
    buckets._full[KEY] = clock.now + rate.period_s
    for _ in range(20):
        wait = await buckets.take(KEY, rate)
        if count == 10**9 and wait == 0:  # less than a microsecond
            break
        assert 0 < wait <= rate.interval_s + 1e-6
        if wait > 1e-3:
            clock.now += wait * 0.99
            assert await buckets.take(KEY, rate) > 0
            clock.now += wait * 0.01
        else:
            clock.now += wait
        assert await buckets.take(KEY, rate) == 0


async def test_never_more_than_burst_and_rate(buckets, clock):
    """Over any time, at most the burst and the refilled tokens are allowed."""
    allowed = 0
    for step in range(6_000):  # ten minutes, a try every 0.1 s
        clock.now = 1_000_000.0 + step / 10
        allowed += await buckets.take(KEY, RATE) == 0
    assert allowed <= 100 + 100 * 10
    assert allowed >= 100 + 100 * 10 - 2


async def test_refused_tries_cost_nothing(buckets, clock):
    """Refused tries do not delay the next token."""
    await takes(buckets, 100)
    wait = await buckets.take(KEY, RATE)
    await takes(buckets, 1_000)
    assert await buckets.take(KEY, RATE) == wait
    clock.now += wait
    assert await buckets.take(KEY, RATE) == 0


async def test_wait_takes_no_token(buckets):
    """`wait` takes no token, and returns the wait that `take` would return."""
    assert buckets.wait(KEY, RATE) == 0
    await takes(buckets, 100)
    assert buckets.wait(KEY, RATE) == pytest.approx(await buckets.take(KEY, RATE))


async def test_a_bounded_number_of_buckets_is_kept(clock):
    """The bucket that was used longest ago is dropped first; it is full by then."""
    buckets = LocalBuckets(max_buckets=3, clock=clock)
    await takes(buckets, 100)
    for name in ("b", "c", "d"):
        clock.now += 61
        assert await takes(buckets, 1, ("creates", name)) == 1
        assert await takes(buckets, 1, ("creates", "b")) == 1
    assert len(buckets) == 3
    assert KEY not in buckets._full
    assert ("creates", "b") in buckets._full


async def test_the_wait_is_exact_by_the_real_clock():
    """With the clock of the machine, too, a try after the wait is allowed."""
    buckets = LocalBuckets()
    rate = Rate(count=1_000)
    while not (wait := await buckets.take(KEY, rate)):
        pass
    end = time.monotonic() + wait
    while time.monotonic() < end:
        pass
    assert await buckets.take(KEY, rate) == 0


# --- allowances ---


def test_the_defaults_are_those_of_the_product():
    """100 creates, 30 lists, 600 reads and 6,000 worker writes in 60 s; 10 active operations."""
    allowed = Allowance()
    rates = {rate_class: allowed.rate(rate_class) for rate_class in RateLimitClass}
    assert {rate_class: rate.count for rate_class, rate in rates.items()} == {
        "creates": 100,
        "lists": 30,
        "reads": 600,
        "changes": 600,
        "worker_writes": 6_000,
    }
    assert {rate.period_s for rate in rates.values()} == {60.0}
    assert allowed.active == 10


def test_principal_with_its_own_allowance():
    """An allowance of one principal keeps the default for omitted limits."""
    default = Allowance(lists=7)
    found, problems = read_allowances('{"alice": {"creates": 500, "active": 100}}', default)
    assert problems == []
    assert found == {"alice": Allowance(creates=500, lists=7, active=100)}


def test_every_problem_is_reported():
    """All problems of the JSON are reported at once, by subject."""
    text = (
        f'{{"a": {{"creates": 0, "bogus": 1, "reads": true, "active": {MAX_COUNT + 1}}}, "b": 5}}'
    )
    found, problems = read_allowances(text, Allowance())
    assert found == {}
    assert len(problems) == 5
    assert [problem.partition(":")[0] for problem in problems] == ["a", "a", "a", "a", "b"]


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null"])
def test_other_json_is_refused(text):
    """JSON other than an object of objects is refused."""
    assert len(read_allowances(text, Allowance())[1]) == 1


def test_every_class_has_an_allowance():
    """An allowance has a limit for every rate-limit class, and one for active operations."""
    assert set(NAMES) == {rate_class.value for rate_class in RateLimitClass} | {"active"}
