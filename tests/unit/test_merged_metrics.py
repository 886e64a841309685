"""Metrics of several processes, merged into one page."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from milepost import telemetry
from milepost.main.serving import serve
from milepost.supervisor.merged_metrics import GAUGES, MergedMetrics

PROGRAM = serve
"""The whole service: its import registers every metric."""


def page(calls, running, overdue):
    """Return the page of a process, with the durations of its calls and the values of gauges."""
    registry = CollectorRegistry()
    counter = Counter("milepost_calls", "Calls", ["code"], registry=registry)
    seconds = Histogram("milepost_seconds", "Duration", registry=registry, buckets=(1, 2))
    for duration in calls:
        counter.labels("OK").inc()
        seconds.observe(duration)
    Gauge("milepost_rpcs_running", "Running", registry=registry).set(running)
    Gauge("milepost_operations_overdue", "Overdue", ["sweep"], registry=registry).labels(
        "purge"
    ).set(overdue)
    return generate_latest(registry).decode()


def samples(merged):
    """Return the samples of a page that `page` returned, by name and bucket."""
    return {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(merged.page().decode())
        for sample in family.samples
    }


def test_counters_and_histograms_are_sums():
    """Counts, sums and buckets are added, label by label; the types of the page remain."""
    merged = MergedMetrics()
    merged.add(page([0.5, 1.5], 0, 0), has_ended=False)
    merged.add(page([0.5], 0, 0), has_ended=False)
    found = samples(merged)
    assert found["milepost_calls_total", None] == 3
    assert found["milepost_seconds_count", None] == 3
    assert found["milepost_seconds_sum", None] == 2.5
    assert [found["milepost_seconds_bucket", le] for le in ("1.0", "2.0", "+Inf")] == [2, 3, 3]
    assert b"# TYPE milepost_calls_total counter" in merged.page()
    assert b"# TYPE milepost_seconds histogram" in merged.page()


def test_gauges_are_merged_by_their_meaning():
    """Calls in flight are a sum; what every process counts in the database is not."""
    merged = MergedMetrics()
    merged.add(page([], 2, 7), has_ended=False)
    merged.add(page([], 3, 6), has_ended=False)
    found = samples(merged)
    assert found["milepost_rpcs_running", None] == 5
    assert found["milepost_operations_overdue", None] == 7


def test_ended_processes_count_in_sums_only():
    """What an ended process has counted remains, and its gauges are gone."""
    merged = MergedMetrics()
    merged.add(page([0.5], 4, 9), has_ended=True)
    now = merged.copy()
    now.add(page([0.5], 1, 2), has_ended=False)
    found = samples(now)
    assert found["milepost_calls_total", None] == 2
    assert found["milepost_rpcs_running", None] == 1
    assert found["milepost_operations_overdue", None] == 2
    assert samples(merged)["milepost_calls_total", None] == 1


def test_shared_limits_need_all_processes():
    """The limits count as shared only if they are so in every process."""
    assert GAUGES["milepost_limits_shared"](1.0, 0.0) == 0
    assert GAUGES["milepost_limits_shared"](1.0, 1.0) == 1


@pytest.mark.parametrize("family", [*telemetry.registry.collect()], ids=lambda family: family.name)
def test_every_gauge_has_a_meaning(family):
    """Every metric of the service is a counter, a histogram, or a gauge with a rule for merging."""
    assert family.type in {"counter", "histogram", "gauge"}
    assert (family.name in GAUGES) == (family.type == "gauge")
