"""What every call counts, kept as plain numbers: all of it is counted on the event loop.

The counters of prometheus_client take a lock for every number, for the sake of whoever counts in
several threads. How the numbers are shown is the library's.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import CollectorRegistry, Metric


class Tally(Collector):
    """A counter with one label, whose values are known beforehand and shown from the beginning."""

    def __init__(
        self,
        name: str,
        documentation: str,
        label: str,
        values: Iterable[str],
        registry: CollectorRegistry,
    ) -> None:
        """Begin with 0 for each of the `values`."""
        self._family = partial(CounterMetricFamily, name, documentation, labels=[label])
        self._counts = dict.fromkeys(values, 0)
        registry.register(self)

    def add(self, value: str, number: int = 1) -> None:
        """Count so many more."""
        self._counts[value] += number

    def collect(self) -> Iterable[Metric]:
        """Return the metric as it is shown."""
        family = self._family()
        for value, number in self._counts.items():
            family.add_metric([value], number)
        return [family]


class Durations(Collector):
    """A histogram in seconds; a combination of labels is shown once it was seen."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        """Begin with nothing; `bounds` are the upper ones of all buckets but the last, rising."""
        self._family = partial(HistogramMetricFamily, name, documentation, labels=labels)
        self._bounds = bounds
        self._seen: dict[tuple[str, ...], _Seen] = {}
        registry.register(self)

    def observe(self, seconds: float, *labels: str) -> None:
        """Count one duration."""
        seen = self._seen.get(labels)
        if seen is None:
            seen = self._seen[labels] = _Seen(len(self._bounds) + 1)
        seen.counts[bisect_left(self._bounds, seconds)] += 1
        seen.total += seconds

    def collect(self) -> Iterable[Metric]:
        """Return the metric as it is shown."""
        family = self._family()
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for labels, seen in self._seen.items():
            buckets = list(zip(names, itertools.accumulate(seen.counts), strict=True))
            family.add_metric(labels, buckets, seen.total)
        return [family]


class _Seen:
    """The durations of one combination of labels: how many in each bucket, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0
