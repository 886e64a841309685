"""The metrics of the registry in the form in which the OpenTelemetry SDK exports them.

A metric keeps its name, without the suffix `_total` of a counter, and gets its unit: a Prometheus
that receives it over OTLP stores it under the name that a scrape of `/metrics` gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from opentelemetry.sdk.metrics.export import DataT
    from opentelemetry.sdk.resources import Resource
    from prometheus_client import Metric as Family
    from prometheus_client.samples import Sample

SCOPE: Final = InstrumentationScope("milepost")
UNITS: Final = {"_seconds": "s"}
"""Units by the suffix of a name; others count something, and have none."""
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_BOUND: Final = "le"
_NS: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """The times of one export, in nanoseconds since 1970."""

    start: int
    """Begin of all counts: the start of the process."""
    last: int
    """Time of the last successful export: older exemplars were sent with it."""
    now: int


def metrics_data(families: Iterable[Family], resource: Resource, period: Period) -> MetricsData:
    """Return all metrics that have values, as those of `resource`."""
    metrics = [_metric(family, period) for family in families if family.samples]
    scope = ScopeMetrics(scope=SCOPE, metrics=metrics, schema_url="")
    return MetricsData(
        resource_metrics=[ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")]
    )


def _metric(family: Family, period: Period) -> Metric:
    units = (unit for suffix, unit in UNITS.items() if family.name.endswith(suffix))
    return Metric(
        name=family.name,  # prometheus_client adds `_total` to the samples only
        description=family.documentation,
        unit=next(units, ""),
        data=_DATA[family.type](family.samples, period),
    )


def _sum(samples: Sequence[Sample], period: Period) -> DataT:
    return Sum(
        data_points=_numbers(samples, period),
        aggregation_temporality=_CUMULATIVE,
        is_monotonic=True,
    )


def _gauge(samples: Sequence[Sample], period: Period) -> DataT:
    return Gauge(data_points=_numbers(samples, period))


def _histogram(samples: Sequence[Sample], period: Period) -> DataT:
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        labels = tuple(item for item in sample.labels.items() if item[0] != _BOUND)
        series.setdefault(labels, []).append(sample)
    return Histogram(
        data_points=[_distribution(dict(labels), each, period) for labels, each in series.items()],
        aggregation_temporality=_CUMULATIVE,
    )


_DATA: Final[Mapping[str, Callable[[Sequence[Sample], Period], DataT]]] = {
    "counter": _sum,
    "gauge": _gauge,
    "histogram": _histogram,
}
"""The conversions by the type of a metric. The service has no other types."""


def _numbers(samples: Sequence[Sample], period: Period) -> list[NumberDataPoint]:
    return [
        NumberDataPoint(
            attributes=sample.labels,
            start_time_unix_nano=period.start,
            time_unix_nano=period.now,
            value=sample.value,
        )
        for sample in samples
    ]


def _distribution(
    labels: Mapping[str, str], samples: Sequence[Sample], period: Period
) -> HistogramDataPoint:
    """Return one series: Prometheus counts all values up to a bound, OTLP those between two."""
    buckets = [sample for sample in samples if _BOUND in sample.labels]
    counts = [round(sample.value) for sample in buckets]
    return HistogramDataPoint(
        attributes=labels,
        start_time_unix_nano=period.start,
        time_unix_nano=period.now,
        count=counts[-1],
        sum=next(sample.value for sample in samples if sample.name.endswith("_sum")),
        bucket_counts=[count - below for below, count in pairwise([0, *counts])],
        explicit_bounds=[float(sample.labels[_BOUND]) for sample in buckets[:-1]],
        min=None,  # type: ignore[arg-type] # unknown; the exporters leave it out
        max=None,  # type: ignore[arg-type]
        exemplars=[each for sample in buckets for each in _exemplars(sample, period)],
    )


def _exemplars(sample: Sample, period: Period) -> list[Exemplar]:
    """Return the exemplar of a bucket, if it is newer than the last export."""
    found = sample.exemplar
    time = 0 if found is None or found.timestamp is None else int(float(found.timestamp) * _NS)
    if found is None or time <= period.last:
        return []
    return [
        Exemplar(
            filtered_attributes={},
            value=found.value,
            time_unix_nano=time,
            span_id=int(found.labels["span_id"], 16),
            trace_id=int(found.labels["trace_id"], 16),
        )
    ]
