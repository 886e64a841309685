"""Comparison of the times of two calls: paired measurements, and an interval of the difference.

Answers are not independent: a busy moment makes all of them slow. So the calls of one round are
made one right after the other, in random order, and only their differences count. A
round with a very slow call is left out. The median of the differences has a bootstrap
interval (Marvin, ePrint 2023/1441; Welch's test assumes too much).
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

RESAMPLES: Final = 500
SLOW: Final = 3.0
"""Multiple of the median time from which on a round is left out."""
_TAIL: Final = 0.005
"""The share on each side of an interval of 99 %."""

Rounds = list[dict[str, float]]
"""The microseconds of the call of each kind, for each round."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval of the median of a difference, in microseconds."""

    low: float
    high: float

    def within(self, bound: float) -> bool:
        """Return True if all of it is within `bound` of zero: the calls are equally fast."""
        return -bound < self.low <= self.high < bound

    def beyond(self, bound: float) -> bool:
        """Return True if all of it is further than `bound` from zero: one call is slower."""
        return self.low > bound or self.high < -bound


def measure(calls: Mapping[str, Callable[[], object]], rounds: int) -> Rounds:
    """Make each call once a round, in random order."""
    order = list(calls)
    found = []
    with _without_collector():
        for _ in range(rounds):
            random.shuffle(order)
            found.append({kind: _timed(calls[kind]) for kind in order})
    return found


def difference(rounds: Rounds, one: str, other: str) -> Interval:
    """Return how much longer `one` takes than `other`, with 99 % confidence."""
    usual = statistics.median(took for each in rounds for took in each.values())
    quiet = [each for each in rounds if max(each.values()) < SLOW * usual]
    differences = [each[one] - each[other] for each in quiet]
    chance = random.Random(len(differences))  # noqa: S311 - the same for the same data
    medians = sorted(
        statistics.median(chance.choices(differences, k=len(differences))) for _ in range(RESAMPLES)
    )
    cut = int(_TAIL * RESAMPLES)
    return Interval(medians[cut], medians[-1 - cut])


def slower(call: Callable[[], object], microseconds: float) -> Callable[[], object]:
    """Return the call with an added delay, which stands for a leak."""

    def delayed() -> None:
        until = time.perf_counter_ns() + microseconds * 1000
        while time.perf_counter_ns() < until:
            pass
        call()

    return delayed


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1000


@contextmanager
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
