"""Token buckets that all replicas share, in Redis or Valkey.

One script takes from many buckets, by the clock of the store, so that replicas need not agree on
the time. Calls gather in front of it as they do in front of the database: what arrives while a
request is under way forms the next one, and a call waits for one round trip at most.

The store is a help, not a condition: when it does not answer within `PATIENCE_S`, the local buckets
of each replica decide, and the store is asked again after `PAUSE_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from milepost import telemetry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.domain.ports import BucketKey, RateLimiter
    from milepost.domain.rates import Rate

PATIENCE_S: Final = 0.05
CONNECT_PATIENCE_S: Final = 0.5
"""A connection is made in the background: no call waits for it."""
PAUSE_S: Final = 1.0
LARGEST_BATCH: Final = 256
PREFIX: Final = "milepost:limit:"
_MICROSECONDS: Final = 1_000_000

TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local waits = {}
for n, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * n - 1]), tonumber(ARGV[2 * n])
  local full = tonumber(redis.call('GET', key) or now)
  -- Not beyond what can be taken: the clock may have been set back, or the limit.
  full = math.max(now, math.min(full, now + burst)) + interval
  if full - now > burst then
    waits[n] = full - now - burst
  else
    redis.call('SET', key, string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
    waits[n] = 0
  end
end
return waits
"""
"""GCRA in whole microseconds: a value is the time at which its bucket would be full again."""


class _Taking(NamedTuple):
    key: BucketKey
    rate: Rate
    answer: asyncio.Future[float | None]


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
        self._waiting: list[_Taking] = []
        self._sender: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._away = True
        telemetry.limits_shared.set(0)
        self._return_soon()

    async def take(self, key: BucketKey, rate: Rate) -> float:
        """See `RateLimiter.take`."""
        if self._away:
            return await self._local.take(key, rate)
        answer: asyncio.Future[float | None] = self._loop.create_future()
        self._waiting.append(_Taking(key, rate, answer))
        if self._sender is None:
            self._sender = self._loop.create_task(self._send())
        wait = await answer
        return await self._local.take(key, rate) if wait is None else wait

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
        _settle(self._waiting, [None] * len(self._waiting))
        await self._disconnect()

    async def _send(self) -> None:
        """Ask for all that wait, and for what arrives meanwhile, until nobody waits."""
        batch: list[_Taking] = []
        try:
            while self._waiting:
                batch = self._waiting[:LARGEST_BATCH]
                del self._waiting[:LARGEST_BATCH]
                waits = None if self._away else await self._ask(batch)
                _settle(batch, waits or [None] * len(batch))
        finally:
            self._sender = None
            _settle(batch, [None] * len(batch))

    async def _ask(self, batch: Sequence[_Taking]) -> list[float] | None:
        """Return how long each has to wait, or nothing when the store is away."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                waits: list[int] = await self._run(batch)
        except (RedisError, OSError, TimeoutError) as error:
            self._lose(error)
            return None
        return [wait / _MICROSECONDS for wait in waits]

    async def _run(self, batch: Sequence[_Taking]) -> Any:
        arguments: list[int] = []
        for _, rate, _ in batch:
            interval = int(rate.period_s * _MICROSECONDS) // rate.count
            arguments += interval, interval * rate.count
        return await self._script(
            keys=[PREFIX + ":".join(key) for key, _, _ in batch], args=arguments
        )

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


def _settle(batch: Sequence[_Taking], waits: Sequence[float | None]) -> None:
    for (_, _, answer), wait in zip(batch, waits, strict=True):
        if not answer.done():
            answer.set_result(wait)
