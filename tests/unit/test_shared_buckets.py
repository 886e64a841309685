"""Shared buckets in Redis: one limit for all replicas, and local limits without Redis."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from milepost.access.token_buckets import LocalBuckets
from milepost.domain.rates import Rate
from milepost.storage import shared_buckets
from milepost.storage.shared_buckets import FULL_CREDIT_DIVISOR, PREFIX, SharedBuckets
from tests.machine import slowdown
from tests.redis import RedisServer
from tests.waiting import until

KEY = ("creates", "alice:\u00e9 x")
OTHER = ("creates", "bob")
RATE = Rate(count=100)
ONE = Rate(count=1)

Make = Callable[[], SharedBuckets]


@pytest.fixture
def redis(tmp_path) -> Iterator[RedisServer]:
    """A Redis server of this test."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
async def make(redis, monkeypatch) -> AsyncIterator[Make]:
    """A function that creates buckets in this Redis, which are closed at the end."""
    monkeypatch.setattr(shared_buckets, "RETRY_INTERVAL_S", 0.05)
    async with AsyncExitStack() as stack:

        def one() -> SharedBuckets:
            buckets = SharedBuckets(redis.url, LocalBuckets(), lambda _: None)
            stack.push_async_callback(buckets.close)
            return buckets

        yield one


@pytest.fixture
async def buckets(make) -> SharedBuckets:
    """Buckets that are connected to Redis."""
    found: SharedBuckets = make()
    await until(lambda: found.is_shared)
    return found


async def takes(buckets, count, key=KEY, rate=RATE):
    """Return how many of `count` concurrent takes were granted."""
    waits = await asyncio.gather(*(buckets.take(key, rate) for _ in range(count)))
    return waits.count(0.0)


async def test_as_many_as_the_rate_over_two_replicas(make):
    """Two replicas that share a store grant together what one grants alone."""
    both = [make(), make()]
    await until(lambda: all(each.is_shared for each in both))
    start = time.monotonic()
    found = await asyncio.gather(*(takes(both[n % 2], 30) for n in range(10)))
    refilled = int((time.monotonic() - start) / RATE.interval_s) + 1
    assert 100 <= sum(found) <= 100 + refilled
    assert await takes(both[0], 5, OTHER) == 5


async def test_the_wait_is_true(buckets):
    """A take succeeds after the wait that the store returned."""
    rate = Rate(count=600)
    await takes(buckets, 600, rate=rate)
    while not (wait := await buckets.take(KEY, rate)):
        pass
    assert 0 < wait <= rate.interval_s
    await asyncio.sleep(wait)  # exactly as long as the store said
    assert await buckets.take(KEY, rate) == 0


async def test_a_clock_that_was_set_back_locks_nobody_out(buckets, redis):
    """A bucket with a time in the future counts as empty."""
    client = Redis.from_url(redis.url)
    await client.set(PREFIX + ":".join(KEY), f"{(time.time() + 86_400) * 1e6:.0f}")
    await client.aclose()
    wait = await buckets.take(KEY, RATE)
    assert 0 < wait <= RATE.interval_s


async def test_what_is_full_is_forgotten(buckets, redis):
    """The store removes a bucket once it is full."""
    await buckets.take(KEY, RATE)
    client = Redis.from_url(redis.url)
    assert 0 < await client.pttl(PREFIX + ":".join(KEY)) <= RATE.interval_s * 1_000 + 1
    await client.aclose()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_without_the_store_limits_are_local(buckets, redis, how):
    """When the store dies or hangs, local buckets decide within a second, until it is back."""
    assert await takes(buckets, 1, rate=ONE) == 1
    redis.signal(how)
    start = time.monotonic()
    assert await takes(buckets, 5, OTHER, ONE) == 1
    assert time.monotonic() - start < 1.0 * slowdown()
    assert not buckets.is_shared
    assert await takes(buckets, 5, OTHER, ONE) == 0
    if how == signal.SIGKILL:
        redis.kill()
        redis.start()
    else:
        redis.signal(signal.SIGCONT)
    await until(lambda: buckets.is_shared)
    # A store that hung keeps its buckets; one that died has lost them.
    assert await takes(buckets, 5, rate=ONE) == (how == signal.SIGKILL)


async def test_a_store_that_is_not_there_yet(redis, make):
    """Takes do not wait for a store that is away at the start."""
    redis.kill()
    buckets = make()
    assert await takes(buckets, 150) == 100
    assert not buckets.is_shared
    redis.start()
    await until(lambda: buckets.is_shared)
    assert await takes(buckets, 150) >= 100


async def test_causes_are_noted_once_each(tmp_path, lines, monkeypatch):
    """The cause of a store that is away, or refuses the password, is noted until it is shared."""
    monkeypatch.setattr(shared_buckets, "RETRY_INTERVAL_S", 0.01)
    noted: list[str | None] = []
    redis = RedisServer(tmp_path, "--requirepass", "n3w-c4n4ry")
    buckets = SharedBuckets(
        f"redis://:0ld-c4n4ry@127.0.0.1:{redis.port}", LocalBuckets(), noted.append
    )
    await until(lambda: bool(noted))
    with redis:
        await until(lambda: len(noted) == 2)
        await asyncio.sleep(0.05)  # some more tries
        await buckets.close()
        away = "the limits are not shared: nothing listens at the address of Redis"
        refused = (
            "the limits are not shared: Redis refuses the password or the user, or demands one"
        )
        assert noted == [away, refused]
        noted.clear()
        good = SharedBuckets(
            f"redis://:n3w-c4n4ry@127.0.0.1:{redis.port}", LocalBuckets(), noted.append
        )
        await until(lambda: noted == [None])
        await good.close()
    found = lines()
    assert [each["event"] for each in found] == 2 * ["limits are not shared"] + [
        "limits are shared"
    ]
    assert all(each["cause"] for each in found[:2])
    assert "c4n4ry" not in f"{found}"


async def test_callers_that_leave_harm_nobody(buckets):
    """Cancelled takes do not affect the others."""
    calls = [asyncio.ensure_future(buckets.take(("reads", str(n)), ONE)) for n in range(50)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in found] == [asyncio.CancelledError, float] * 25
    assert await takes(buckets, 1, ("reads", "again")) == 1
    assert buckets.is_shared


async def test_closing_answers_whoever_waits(buckets):
    """A close answers waiting takes with the local buckets."""
    calls = [asyncio.ensure_future(buckets.take(KEY, ONE)) for _ in range(3)]
    await asyncio.sleep(0)
    await buckets.close()
    async with asyncio.timeout(5):
        waits = await asyncio.gather(*calls)
    assert waits.count(0.0) == 1


def requests_of(redis: RedisServer) -> int:
    """Return the number of requests to the store."""
    with SyncRedis.from_url(redis.url) as client:
        stats = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_credit_spares_most_questions_and_keeps_the_limit(make, redis):
    """With credit, few takes need the store, and the limit over two replicas still holds."""
    both = [make(), make()]
    await until(lambda: all(each.is_shared for each in both))
    before = requests_of(redis)
    rate = Rate(count=3_000, period=timedelta(hours=1))  # comes back more slowly than it is taken
    start = time.monotonic()
    taken = 0
    while await both[taken % 2].take(KEY, rate) == 0:
        taken += 1
    refilled = int((time.monotonic() - start) / rate.interval_s) + 1
    assert 0.98 * rate.count <= taken <= rate.count + refilled
    assert requests_of(redis) - before < rate.count / 4


async def test_what_was_let_through_on_credit_is_told(make, redis):
    """Takes on credit are soon missing from the bucket of the other replica."""
    first, second = make(), make()
    await until(lambda: first.is_shared and second.is_shared)
    rate = Rate(count=1_000, period=timedelta(hours=1))
    before = requests_of(redis)
    for _ in range(1 + rate.count // FULL_CREDIT_DIVISOR):  # the first one needs the store
        assert await first.take(KEY, rate) == 0
    assert requests_of(redis) == before + 1
    await until(lambda: requests_of(redis) == before + 2)
    assert await takes(second, rate.count, rate=rate) == rate.count - 11


async def test_an_empty_bucket_is_not_asked_again(buckets, redis):
    """Takes from an empty bucket are refused without a request until its next token."""
    assert await takes(buckets, 2, rate=ONE) == 1
    before = requests_of(redis)
    waits = [await buckets.take(KEY, ONE) for _ in range(100)]
    assert waits == sorted(waits, reverse=True)
    assert 50 < waits[-1] < waits[0] <= ONE.period_s
    assert requests_of(redis) == before


async def test_who_calls_now_and_then_does_not_ask_each_time(buckets):
    """Credit is valid for SHARE_TTL_S; then the state of the bucket is dropped."""
    rate = Rate(count=1_000)
    assert await buckets.take(KEY, rate) == 0
    await until(lambda: buckets._sender is None)
    assert buckets._known_wait(buckets._shares[KEY]) == 0
    await until(lambda: buckets._sender is None)  # the take is reported
    assert buckets._shares[KEY].owed == 0
    buckets._shares[KEY].valid_until = 0.0
    assert buckets._known_wait(buckets._shares[KEY]) is None
    await until(lambda: buckets._sender is None)
    buckets._shares[KEY].valid_until = buckets._next_clean_time = 0.0
    assert await buckets.take(OTHER, rate) == 0
    assert set(buckets._shares) == {OTHER}
