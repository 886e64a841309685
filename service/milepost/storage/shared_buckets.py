"""Token buckets that all replicas share, in Redis or Valkey.

One script takes tokens from many buckets, by the clock of the store, so that the clocks of the
replicas do not matter. A call waits for the store only if the answer depends on it. While a bucket
is far from empty, the store gives each replica credit: the replica admits a few calls at once and
reports them within `SETTLE_INTERVAL_S`. Once a bucket is empty, the replica knows when the next
token is due. Calls that need the store are batched as they are for the database: those that arrive
during a request form the next one.

Credit is at most a hundredth of a full bucket and a tenth of its tokens, so limits are exact
while a bucket is nearly empty, and otherwise exceeded by at most a hundredth for each replica.

The store is optional: when it does not answer within `QUEUE_TIMEOUT_S`, the local buckets of each
replica decide, and the replica tries the store again after `RETRY_INTERVAL_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from milepost import telemetry
from milepost.storage.redis_failures import failure, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from milepost.domain.ports import RateLimiter
    from milepost.domain.rates import BucketKey, Rate

    _Answer = asyncio.Future[float | None]

QUEUE_TIMEOUT_S: Final = 0.05
CONNECT_TIMEOUT_S: Final = 0.5
"""Time to connect, in the background: no call waits for it."""
RETRY_INTERVAL_S: Final = 1.0
SETTLE_INTERVAL_S: Final = 0.02
"""Time after which calls that were admitted on credit are reported to the store."""
SHARE_TTL_S: Final = 1.0
"""Time for which the last answer about a bucket is valid, with its credit."""
MAX_BATCH: Final = 256
FULL_CREDIT_DIVISOR: Final = 100
"""Credit is at most a full bucket divided by this."""
REMAINING_CREDIT_DIVISOR: Final = 10
"""Credit is at most the remaining tokens divided by this."""
PREFIX: Final = "milepost:limit:"
_MICROSECONDS: Final = 1_000_000

TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answers = {}
for n, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[4 * n - 3]), tonumber(ARGV[4 * n - 2])
  local owed, wanted = tonumber(ARGV[4 * n - 1]), tonumber(ARGV[4 * n])
  local full = tonumber(redis.call('GET', key) or now)
  -- Clamped, because the clock may have been set back, or the limit lowered.
  full = math.max(now, math.min(full, now + burst)) + owed * interval
  local remaining = math.max(0, math.floor((now + burst - full) / interval))
  local granted = math.min(wanted, remaining)
  full = full + granted * interval
  if owed + granted > 0 then
    redis.call('SET', key, string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
  end
  answers[n] = {granted, remaining - granted, math.max(0, full + interval - now - burst)}
end
return answers
"""
"""GCRA in whole microseconds: a value is the time at which its bucket would be full again. Returns
for each bucket the granted tokens, the remaining tokens, and the time until the next token."""


class _Share:
    """The state of one bucket in this replica."""

    __slots__ = ("credit", "empty_until", "key", "owed", "rate", "valid_until", "waiting")

    def __init__(self, key: BucketKey, rate: Rate) -> None:
        self.key = key
        self.rate = rate
        self.credit = 0
        """Calls that may still be admitted without a request to the store."""
        self.owed = 0
        """Calls that were admitted on credit and not yet reported to the store."""
        self.empty_until = 0.0
        """Time at which the bucket has a token again."""
        self.valid_until = 0.0
        """Time after which this state is outdated."""
        self.waiting: list[_Answer] = []

    def settle(self, reported: int, remaining: int) -> None:
        """Subtract the reported calls, and set the credit for the remaining tokens."""
        self.owed -= reported
        credit = min(self.rate.count // FULL_CREDIT_DIVISOR, remaining // REMAINING_CREDIT_DIVISOR)
        self.credit = max(0, credit - self.owed)


class _BucketRequest(NamedTuple):
    """Tokens of one bucket that are reported to the store, and that waiting calls want."""

    share: _Share
    owed: int
    wanted: int


class SharedBuckets:
    """A `RateLimiter` with buckets in Redis or Valkey. Create and close it on a running loop."""

    def __init__(
        self, url: str, local: RateLimiter, note_problem: Callable[[str | None], None]
    ) -> None:
        """Start to connect.

        Args:
            url: the address of the store.
            local: decides while the store is unavailable.
            note_problem: called with the reason why it is, and with None once it is not.
        """
        self._local = local
        self._note_problem = note_problem
        self._problem: str | None = None
        self._loop = asyncio.get_running_loop()
        self._redis: Redis = Redis.from_url(
            url,
            max_connections=1,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._script = self._redis.register_script(TAKE)
        self._shares: dict[BucketKey, _Share] = {}
        self._due: dict[BucketKey, _Share] = {}
        """Buckets with owed tokens or waiting calls."""
        self._next_clean_time = 0.0
        self._has_waiting = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._is_away = True
        telemetry.limits_shared.set(0)
        self._reconnect_soon()

    async def take(self, key: BucketKey, rate: Rate) -> float:
        """See `RateLimiter.take`."""
        if self._is_away:
            return await self._local.take(key, rate)
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = _Share(key, rate)
        wait = self._known_wait(share)
        if wait is None:
            wait = await self._ask_store(share)
        return await self._local.take(key, rate) if wait is None else wait

    def _known_wait(self, share: _Share) -> float | None:
        """Return the wait in seconds, or None if only the store can decide."""
        now = self._loop.time()
        if share.credit and now < share.valid_until:
            share.credit -= 1
            share.owed += 1
            self._send_soon(share)
            return 0.0
        if now < share.empty_until:
            return share.empty_until - now
        return None

    async def _ask_store(self, share: _Share) -> float | None:
        """Return the wait that the store answers, or None if the store is unavailable."""
        answer: _Answer = self._loop.create_future()
        share.waiting.append(answer)
        self._has_waiting.set()
        self._send_soon(share)
        return await answer

    def _send_soon(self, share: _Share) -> None:
        self._due[share.key] = share
        if self._sender is None:
            self._sender = self._loop.create_task(self._send())

    @property
    def is_shared(self) -> bool:
        """True while the store is available and decides."""
        return not self._is_away

    async def close(self) -> None:
        """Answer waiting calls, and close the connection."""
        for task in (self._reconnecting, self._sender):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._drop_shares()
        await self._disconnect()

    async def _send(self) -> None:
        """Send batches until no call waits and no token is owed."""
        try:
            while self._due:
                batch = self._next_batch()
                for start in range(0, len(batch), MAX_BATCH):
                    await self._take_batch(batch[start : start + MAX_BATCH])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SETTLE_INTERVAL_S):
                        await self._has_waiting.wait()
        except (RedisError, OSError, TimeoutError) as error:
            self._disable(error)
            self._drop_shares()
        except BaseException:  # every waiting call must be answered
            self._drop_shares()
            raise
        finally:
            self._sender = None

    def _next_batch(self) -> list[_BucketRequest]:
        """Return the requests for all due buckets."""
        self._has_waiting.clear()
        due, self._due = self._due, {}
        for share in due.values():
            share.waiting = [answer for answer in share.waiting if not answer.done()]
        self._clean()
        return [_BucketRequest(share, share.owed, len(share.waiting)) for share in due.values()]

    def _clean(self) -> None:
        """Drop the state of unused buckets, from time to time."""
        now = self._loop.time()
        if now < self._next_clean_time:
            return
        self._next_clean_time = now + SHARE_TTL_S
        for key, share in tuple(self._shares.items()):
            idle = not share.owed and not share.waiting
            if idle and max(share.empty_until, share.valid_until) <= now:
                del self._shares[key]

    async def _take_batch(self, batch: Sequence[_BucketRequest]) -> None:
        """Answer waiting calls: granted tokens with 0, the others with the wait until a token."""
        async with asyncio.timeout(QUEUE_TIMEOUT_S):
            answers = await self._run_script(batch)
        now = self._loop.time()
        for (share, owed, wanted), (granted, remaining, wait) in zip(batch, answers, strict=True):
            share.settle(owed, remaining)
            share.valid_until = now + SHARE_TTL_S
            seconds = wait / _MICROSECONDS
            share.empty_until = now + seconds if wait else 0.0
            waited, share.waiting = share.waiting[:wanted], share.waiting[wanted:]
            _answer(waited[:granted], 0.0)
            _answer(waited[granted:], seconds)

    async def _run_script(self, batch: Sequence[_BucketRequest]) -> Sequence[tuple[int, int, int]]:
        arguments: list[int] = []
        for share, owed, wanted in batch:
            rate = share.rate
            interval = max(1, int(rate.period_s * _MICROSECONDS) // rate.count)
            arguments += interval, interval * rate.count, owed, wanted
        answers: Sequence[tuple[int, int, int]] = await self._script(
            keys=[PREFIX + ":".join(share.key) for share, _, _ in batch], args=arguments
        )
        return answers

    def _drop_shares(self) -> None:
        """Drop the state of all buckets; the local buckets decide for waiting calls."""
        shares, self._shares, self._due = self._shares, {}, {}
        for share in shares.values():
            _answer(share.waiting, None)

    def _disable(self, error: Exception) -> None:
        self._is_away = True
        telemetry.limits_shared.set(0)
        telemetry.limits_lost.inc()
        self._note_failure("shared limits lost", error)
        self._reconnect_soon()

    def _note_failure(self, event: str, error: Exception) -> None:
        """Log a failure, unless it has the cause of the one before it."""
        problem = failure(error)
        if problem != self._problem:
            self._problem = problem
            self._note_problem(f"the limits are not shared: {problem}")
            telemetry.log.warning(event, problem=problem, cause=text_of(error))

    def _reconnect_soon(self) -> None:
        if self._reconnecting is None or self._reconnecting.done():
            self._reconnecting = self._loop.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        """Reconnect until the store answers, then share the limits again."""
        while True:
            try:
                await self._disconnect()
                async with asyncio.timeout(CONNECT_TIMEOUT_S * 2):
                    await self._run_script(())  # loads the script too
                break
            except (RedisError, OSError, TimeoutError) as error:
                self._note_failure("limits are not shared", error)
                await asyncio.sleep(RETRY_INTERVAL_S)
        self._is_away, self._problem = False, None
        self._note_problem(None)
        telemetry.limits_shared.set(1)
        telemetry.log.info("limits are shared")

    async def _disconnect(self) -> None:
        """Drop the connection, which may still receive an outdated answer."""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._redis.aclose()


def _answer(waiting: Sequence[_Answer], wait: float | None) -> None:
    for answer in waiting:
        if not answer.done():
            answer.set_result(wait)
