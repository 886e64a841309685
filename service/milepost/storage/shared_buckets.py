"""Token buckets that all replicas share, in Redis or Valkey.

One script takes from many buckets, by the clock of the store, so that replicas need not agree on
the time. A call waits for the store only where that decides something. As long as a bucket holds
plenty, the store gives each replica credit: it lets a few calls through at once, and tells the
store within `SETTLE_S`. Once a bucket is empty, the replica knows until when. All that have to
ask gather, as they do in front of the database: what arrives while a request is under way forms
the next one.

Credit is at most a hundredth of a full bucket and a tenth of what is in it, so limits are exact
while a bucket is nearly empty, and otherwise never off by more than a hundredth for each replica.

The store is a help, not a condition: when it does not answer within `QUEUE_TIMEOUT_S`, the local
buckets of each replica decide, and the store is asked again after `PAUSE_S`.
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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.domain.ports import RateLimiter
    from milepost.domain.rates import BucketKey, Rate

    _Answer = asyncio.Future[float | None]

QUEUE_TIMEOUT_S: Final = 0.05
CONNECT_PATIENCE_S: Final = 0.5
"""A connection is made in the background: no call waits for it."""
PAUSE_S: Final = 1.0
SETTLE_S: Final = 0.02
"""How long the store may not know of a call that was let through on credit."""
KEPT_S: Final = 1.0
"""How long credit is good for. Who calls now and then should not ask each time."""
MAX_BATCH: Final = 256
CREDIT_OF_FULL: Final = 100
CREDIT_OF_LEFT: Final = 10
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
  -- Not beyond what can be taken: the clock may have been set back, or the limit.
  full = math.max(now, math.min(full, now + burst)) + owed * interval
  local left = math.max(0, math.floor((now + burst - full) / interval))
  local granted = math.min(wanted, left)
  full = full + granted * interval
  if owed + granted > 0 then
    redis.call('SET', key, string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
  end
  answers[n] = {granted, left - granted, math.max(0, full + interval - now - burst)}
end
return answers
"""
"""GCRA in whole microseconds: a value is the time at which its bucket would be full again. Answers
for each bucket how many it granted, how many are left, and in what time there will be one."""


class _Share:
    """What this replica knows of one bucket."""

    __slots__ = ("credit", "empty_until", "good_until", "key", "owed", "rate", "waiting")

    def __init__(self, key: BucketKey, rate: Rate) -> None:
        self.key = key
        self.rate = rate
        self.credit = 0
        """How many calls may be let through before the store is asked again."""
        self.owed = 0
        """How many were, without its knowing."""
        self.empty_until = 0.0
        """Before this time, nobody gets anything from it."""
        self.good_until = 0.0
        """After this time, nothing of this is to be relied on."""
        self.waiting: list[_Answer] = []

    def settle(self, told: int, left: int) -> None:
        """The store knows of so many that were owed, and has so many left."""
        self.owed -= told
        credit = min(self.rate.count // CREDIT_OF_FULL, left // CREDIT_OF_LEFT)
        self.credit = max(0, credit - self.owed)


class _Asked(NamedTuple):
    """What the store is told and asked about one bucket."""

    share: _Share
    owed: int
    wanted: int


class SharedBuckets:
    """Buckets in one Redis or Valkey; a `RateLimiter`. Make and close it on a running loop."""

    def __init__(self, url: str, local: RateLimiter) -> None:
        """Use the store at `url`, which need not be there; `local` decides while it is away."""
        self._local = local
        self._loop = asyncio.get_running_loop()
        self._redis: Redis = Redis.from_url(
            url,
            max_connections=1,
            socket_connect_timeout=CONNECT_PATIENCE_S,
            socket_timeout=CONNECT_PATIENCE_S,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._script = self._redis.register_script(TAKE)
        self._shares: dict[BucketKey, _Share] = {}
        self._due: dict[BucketKey, _Share] = {}
        """Those of which the store is to be told, or asked."""
        self._cleaning = 0.0
        self._wanted = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._away = True
        telemetry.limits_shared.set(0)
        self._return_soon()

    async def take(self, key: BucketKey, rate: Rate) -> float:
        """See `RateLimiter.take`."""
        if self._away:
            return await self._local.take(key, rate)
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = _Share(key, rate)
        wait = self._known_wait(share)
        if wait is None:
            wait = await self._told(share)
        return await self._local.take(key, rate) if wait is None else wait

    def _known_wait(self, share: _Share) -> float | None:
        """Return the wait as far as this replica knows it, or None if the store must be asked."""
        now = self._loop.time()
        if share.credit and now < share.good_until:
            share.credit -= 1
            share.owed += 1
            self._send_soon(share)
            return 0.0
        if now < share.empty_until:
            return share.empty_until - now
        return None

    async def _told(self, share: _Share) -> float | None:
        """Return what the store says, or nothing when it is away."""
        answer: _Answer = self._loop.create_future()
        share.waiting.append(answer)
        self._wanted.set()
        self._send_soon(share)
        return await answer

    def _send_soon(self, share: _Share) -> None:
        self._due[share.key] = share
        if self._sender is None:
            self._sender = self._loop.create_task(self._send())

    @property
    def is_shared(self) -> bool:
        """Whether the store is there and decides."""
        return not self._away

    async def close(self) -> None:
        """Let go of the connection."""
        for task in (self._returning, self._sender):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._forget()
        await self._disconnect()

    async def _send(self) -> None:
        """Ask for all that wait and tell what is owed, until there is nothing of either."""
        try:
            while self._due:
                batch = self._gathered()
                for start in range(0, len(batch), MAX_BATCH):
                    await self._ask(batch[start : start + MAX_BATCH])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SETTLE_S):
                        await self._wanted.wait()
        except (RedisError, OSError, TimeoutError) as error:
            self._lose(error)
            self._forget()
        except BaseException:  # whatever it was, nobody may wait for ever
            self._forget()
            raise
        finally:
            self._sender = None

    def _gathered(self) -> list[_Asked]:
        """Return what there is to ask and tell."""
        self._wanted.clear()
        due, self._due = self._due, {}
        for share in due.values():
            share.waiting = [answer for answer in share.waiting if not answer.done()]
        self._clean()
        return [_Asked(share, share.owed, len(share.waiting)) for share in due.values()]

    def _clean(self) -> None:
        """Forget, now and then, what nobody used for a while."""
        now = self._loop.time()
        if now < self._cleaning:
            return
        self._cleaning = now + KEPT_S
        for key, share in tuple(self._shares.items()):
            idle = not share.owed and not share.waiting
            if idle and max(share.empty_until, share.good_until) <= now:
                del self._shares[key]

    async def _ask(self, batch: Sequence[_Asked]) -> None:
        """Let those go on that wait, as far as the store says so, and tell the others when."""
        async with asyncio.timeout(QUEUE_TIMEOUT_S):
            answers = await self._run(batch)
        now = self._loop.time()
        for (share, owed, wanted), (granted, left, wait) in zip(batch, answers, strict=True):
            share.settle(owed, left)
            share.good_until = now + KEPT_S
            seconds = wait / _MICROSECONDS
            share.empty_until = now + seconds if wait else 0.0
            waited, share.waiting = share.waiting[:wanted], share.waiting[wanted:]
            _answer(waited[:granted], 0.0)
            _answer(waited[granted:], seconds)

    async def _run(self, batch: Sequence[_Asked]) -> Sequence[tuple[int, int, int]]:
        arguments: list[int] = []
        for share, owed, wanted in batch:
            rate = share.rate
            interval = max(1, int(rate.period_s * _MICROSECONDS) // rate.count)
            arguments += interval, interval * rate.count, owed, wanted
        answers: Sequence[tuple[int, int, int]] = await self._script(
            keys=[PREFIX + ":".join(share.key) for share, _, _ in batch], args=arguments
        )
        return answers

    def _forget(self) -> None:
        """Let the local buckets decide for whoever waits."""
        shares, self._shares, self._due = self._shares, {}, {}
        for share in shares.values():
            _answer(share.waiting, None)

    def _lose(self, error: Exception) -> None:
        self._away = True
        telemetry.limits_shared.set(0)
        telemetry.limits_lost.inc()
        telemetry.log.warning("shared limits lost", error=type(error).__name__)
        self._return_soon()

    def _return_soon(self) -> None:
        if self._returning is None or self._returning.done():
            self._returning = self._loop.create_task(self._return())

    async def _return(self) -> None:
        """Share the limits again as soon as the store answers."""
        while True:
            try:
                await self._disconnect()
                async with asyncio.timeout(CONNECT_PATIENCE_S * 2):
                    await self._run(())  # loads the script too
                break
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(PAUSE_S)
        self._away = False
        telemetry.limits_shared.set(1)
        telemetry.log.info("limits are shared")

    async def _disconnect(self) -> None:
        """Drop the connection, which may have an answer under way that nobody waits for."""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_PATIENCE_S):
                await self._redis.aclose()


def _answer(waiting: Sequence[_Answer], wait: float | None) -> None:
    for answer in waiting:
        if not answer.done():
            answer.set_result(wait)
