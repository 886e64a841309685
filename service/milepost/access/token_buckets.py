"""Token buckets in the memory of this process, by GCRA: one number each.

The number is the time at which the bucket would be full again. A full bucket need not be stored,
so the table is bounded without a loss: the bucket that is dropped first is the one that was used
longest ago, which is full unless there are more principals than places.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.domain.rates import BucketKey, Rate

MAX_BUCKETS: Final = 100_000
_ROUNDING_S: Final = 1e-6
"""More than the rounding errors of the sums below, less than a caller could use."""


class LocalBuckets:
    """Buckets of this process alone; a `RateLimiter`."""

    def __init__(
        self, *, max_buckets: int = MAX_BUCKETS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Store at most `max_buckets`; `clock` gives seconds that never go back."""
        self._max_buckets = max_buckets
        self._clock = clock
        self._full: OrderedDict[BucketKey, float] = OrderedDict()

    def __len__(self) -> int:
        """Return how many buckets are stored."""
        return len(self._full)

    async def take(self, key: BucketKey, rate: Rate) -> float:
        """See `RateLimiter.take`."""
        now = self._clock()
        full = self._full
        then = full.get(key, now)
        then = (then if then > now else now) + rate.interval_s  # noqa: FURB136 - max() costs more
        wait = then - now - rate.period_s
        if wait > _ROUNDING_S:
            return wait
        full[key] = then
        full.move_to_end(key)
        if len(full) > self._max_buckets:
            full.popitem(last=False)
        return 0.0

    def count(self, key: BucketKey, rate: Rate) -> int:
        """Return the number of tokens that there are now. Take none."""
        now = self._clock()
        missing_s = max(0.0, self._full.get(key, now) - now)
        return int((rate.period_s - missing_s + _ROUNDING_S) / rate.interval_s)

    def wait(self, key: BucketKey, rate: Rate) -> float:
        """Return the seconds until there is a token, 0 if there is one now. Take none."""
        now = self._clock()
        return max(0.0, self._full.get(key, now) + rate.interval_s - now - rate.period_s)
