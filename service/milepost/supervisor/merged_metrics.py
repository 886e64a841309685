"""The metrics of all processes as one page.

Counters and histograms are sums over all processes that ever ran, so that they never go down when a
process ends. Gauges are those of the running processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GAUGES: Final[dict[str, Callable[[float, float], float]]] = {
    "milepost_rpcs_running": float.__add__,
    "milepost_progress_streams": float.__add__,
    "milepost_limit_buckets": float.__add__,
    "milepost_webhooks_running": float.__add__,
    # Every process counts the rows of the one database.
    "milepost_operations_overdue": max,
    "milepost_leases_spared": max,
    "milepost_operations_active": max,
    "milepost_operations_oldest_pending_age_seconds": max,
    "milepost_webhooks_overdue_seconds": max,
    # One of them sweeps at a time.
    "milepost_sweeper_last_pass_timestamp_seconds": max,
    # Every process has the one certificate.
    "milepost_tls_certificate_expiry_timestamp_seconds": min,
    "milepost_tls_files_unusable": max,
    # 1 only if all of them share their limits.
    "milepost_limits_shared": min,
}
"""How the values of a gauge in two processes become one."""

_Labels = tuple[tuple[str, str], ...]


class MergedMetrics:
    """Metrics of several processes, each added as its page."""

    def __init__(self) -> None:
        """Start without any metric."""
        self._families: dict[str, Metric] = {}
        self._values: dict[str, dict[tuple[str, _Labels], float]] = {}

    def add(self, page: str, *, has_ended: bool) -> None:
        """Add the metrics of a process. The gauges of one that has ended are left out."""
        for family in text_string_to_metric_families(page):
            if not (has_ended and family.type == "gauge"):
                self._add(family)

    def copy(self) -> MergedMetrics:
        """Return metrics that begin with these."""
        copy = MergedMetrics()
        copy._families = dict(self._families)
        copy._values = {name: dict(values) for name, values in self._values.items()}
        return copy

    def page(self, further: Iterable[Metric] = ()) -> bytes:
        """Return the page of all metrics, and of `further` ones."""
        registry = CollectorRegistry()
        registry.register(_Given([*map(self._family, self._families), *further]))
        return generate_latest(registry)

    def _add(self, family: Metric) -> None:
        merge = GAUGES.get(family.name, float.__add__)
        self._families.setdefault(family.name, family)
        values = self._values.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, tuple(sample.labels.items()))
            values[key] = merge(values[key], sample.value) if key in values else sample.value

    def _family(self, name: str) -> Metric:
        first = self._families[name]
        family = Metric(name, first.documentation, first.type)
        for (sample, labels), value in self._values[name].items():
            family.add_sample(sample, dict(labels), value)
        return family


class _Given(Collector):
    """A collector of metrics that are known already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics
