"""Token buckets in the memory of this process, by GCRA: one number each.

The number is the time at which the bucket would be full again. One that is full needs no
remembering, and so the table is bounded without a loss: what is dropped first is what was used
longest ago, which is full unless there are more principals than places.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.domain.rates import BucketKey, Rate

MOST_REMEMBERED: Final = 100_000
_ROUNDING_S: Final = 1e-6
"""More than the sums below are off by after years of uptime, less than anybody could use."""


class LocalBuckets:
    """Buckets of this process alone; a `RateLimiter`."""

    def __init__(
        self, *, most: int = MOST_REMEMBERED, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Remember `most` buckets; `clock` gives seconds that never go back."""
        self._most = most
        self._clock = clock
        self._full: OrderedDict[BucketKey, float] = OrderedDict()

    def __len__(self) -> int:
        """Return how many buckets are remembered."""
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
        if len(full) > self._most:
            full.popitem(last=False)
        return 0.0

    def wait(self, key: BucketKey, rate: Rate) -> float:
        """Return in how many seconds there will be one, 0 if there is; take none."""
        now = self._clock()
        return max(0.0, self._full.get(key, now) + rate.interval_s - now - rate.period_s)
