"""Rate limits: how often each principal may call, by rate-limit class.

Messages of a stream count as calls, and several updates in one message as several messages. Limits
belong to the subject, not to its credential: another key does not raise them.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.access.leases import HeldLeases
from milepost.access.policy import UseCase
from milepost.access.token_buckets import LocalBuckets
from milepost.domain.errors import RateLimited
from milepost.domain.operation import ID_LENGTH
from milepost.domain.rates import Allowance, Allowances, Rate, RateLimitClass

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from milepost.access.method import Method
    from milepost.domain.operation import Principal
    from milepost.domain.ports import RateLimiter
    from milepost.domain.rates import BucketKey

PROGRESS_LIMIT: Final = "progress_updates_of_one_operation"


class RateLimits:
    """Refuses calls, and ends streams, of a principal that exceeds its rates."""

    def __init__(
        self,
        limiter: RateLimiter,
        allowances: Allowances,
        *,
        progress_interval: timedelta = timedelta(0),
    ) -> None:
        """Take tokens from the buckets of `limiter`, which fill as `allowances` say.

        Args:
            limiter: where the buckets are.
            allowances: of every principal.
            progress_interval: the shortest time between two unary progress updates of one
                operation by one principal; 0 is no limit.
        """
        self._limiter = limiter
        self.leases = HeldLeases()
        """The leases whose renewals are free."""
        self._default = _rates(allowances.default)
        self._special = {who: _rates(each) for who, each in allowances.by_subject.items()}
        self._interval = Rate(count=1, period=progress_interval) if progress_interval else None

    async def charge(
        self,
        principal: Principal,
        method: Method,
        *,
        operation_id: str | None = None,
        renews: str | None = None,
    ) -> None:
        """Take one call of `method` from the bucket of `principal`, unless it renews a lease.

        Args:
            principal: the caller.
            method: what it calls.
            operation_id: the operation that the call is about, if it is about a single one, as
                the caller wrote it.
            renews: the operation whose lease the call renews, if it does nothing else.

        Raises:
            RateLimited: the bucket is empty; the error says when to come back.
        """
        limit = method.rate_limit
        rates = self._special.get(principal.subject, self._default)
        if renews is None or not self.leases.takes_free_renewal(principal.subject, renews):
            await self._take((limit, principal.subject), rates[limit], limit)
        if (
            self._interval is not None
            and operation_id is not None
            and method.use_case is UseCase.REPORT_PROGRESS
        ):
            # With the subject in the key: no principal can use up the updates of another one.
            key = ("progress", operation_id[:ID_LENGTH], principal.subject)
            await self._take(key, self._interval, PROGRESS_LIMIT)

    async def charged(
        self,
        messages: AsyncIterator[Any],
        principal: Principal,
        method: Method,
        *,
        renews: Callable[[Any], str | None],
    ) -> AsyncIterator[Any]:
        """Yield the messages of a stream; each costs as much as a call of its `method`.

        `renews` returns the operation whose lease a message renews, if it does nothing else.
        """
        async for message in messages:
            await self.charge(principal, method, renews=renews(message))
            yield message

    async def _take(self, key: BucketKey, rate: Rate, limit: str) -> None:
        wait = await self._limiter.take(key, rate)
        if wait:
            raise rate_limited(limit, rate, wait)


def rate_limited(limit: str, rate: Rate, wait: float) -> RateLimited:
    """Return the error that says in how many seconds there is a token: never too early."""
    return RateLimited(
        limit=limit,
        count=rate.count,
        period=rate.period,
        retry_after=timedelta(milliseconds=math.ceil(wait * 1_000)),
    )


def local_buckets() -> LocalBuckets:
    """Return the buckets of this process, which the metrics count."""
    buckets = LocalBuckets()
    telemetry.buckets.set_function(lambda: len(buckets))
    return buckets


def _rates(allowance: Allowance) -> Mapping[RateLimitClass, Rate]:
    return {limit: allowance.rate(limit) for limit in RateLimitClass}
