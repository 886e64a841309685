"""Metrics of the registry as the OpenTelemetry SDK exports them."""

import time

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from milepost import telemetry
from milepost.main.serving import serve
from milepost.telemetry.otlp_metrics import Period, metrics_data
from tests import otlp

PROGRAM = serve
"""The whole service: its import registers every metric."""
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RESOURCE = Resource({"service.name": "test"})
DELTA_NS = 1_000


def exported(registry, *, last=0):
    """Return the export of a registry after one that ended at `last`."""
    now = time.time_ns()
    period = Period(start=now - DELTA_NS, last=last, now=now)
    return encode_metrics(metrics_data(registry.collect(), RESOURCE, period))


def test_values_are_those_of_the_page():
    """Counters, gauges and histograms have the values and labels of the page."""
    registry = CollectorRegistry()
    calls = Counter("calls_total", "Calls", ["code"], registry=registry)
    calls.labels("OK").inc(3)
    calls.labels("ABORTED").inc()
    Gauge("running", "Running", registry=registry).set(2.5)
    durations = Histogram("call_seconds", "Time", ["code"], registry=registry, buckets=(0.5, 2))
    for seconds in (0.1, 0.2, 1, 7):
        durations.labels("OK").observe(seconds)
    durations.labels("ABORTED").observe(0.3)
    page = otlp.values_of_page(generate_latest(registry).decode())
    assert otlp.values(exported(registry)) == page
    assert page[("call_seconds_sum", frozenset({("code", "OK")}))] == 8.3


def test_names_types_and_units():
    """A counter is a monotonic sum without `_total`; seconds are a unit; sums are cumulative."""
    registry = CollectorRegistry()
    Counter("calls_total", "Number of calls", registry=registry)
    Histogram("call_seconds", "Time", registry=registry, buckets=(0.5, 2))
    found = otlp.metrics(exported(registry))
    calls, seconds = found["calls"], found["call_seconds"]
    assert (calls.description, calls.unit, seconds.unit) == ("Number of calls", "", "s")
    assert calls.sum.is_monotonic
    cumulative = calls.sum.aggregation_temporality
    assert cumulative == seconds.histogram.aggregation_temporality == 2
    (point,) = seconds.histogram.data_points
    assert point.time_unix_nano - point.start_time_unix_nano == DELTA_NS
    assert (list(point.bucket_counts), list(point.explicit_bounds)) == ([0, 0, 0], [0.5, 2])
    assert not point.HasField("min")


def test_exemplar_is_sent_once():
    """A bucket has its exemplar with trace and span, unless an export has sent it already."""
    registry = CollectorRegistry()
    seconds = Histogram("call_seconds", "Time", registry=registry, buckets=(0.5, 2))
    seconds.observe(1.5, {"trace_id": TRACE_ID, "span_id": SPAN_ID})

    def exemplars(last):
        (point,) = otlp.metrics(exported(registry, last=last))["call_seconds"].histogram.data_points
        return [
            (each.trace_id.hex(), each.span_id.hex(), each.as_double) for each in point.exemplars
        ]

    assert exemplars(0) == [(TRACE_ID, SPAN_ID, 1.5)]
    assert exemplars(time.time_ns()) == []


def test_metric_without_values_is_left_out():
    """A metric whose labels have no values yet is not exported."""
    registry = CollectorRegistry()
    Counter("calls_total", "Calls", ["code"], registry=registry)
    assert otlp.metrics(exported(registry)) == {}


def test_every_metric_of_the_service_can_be_exported():
    """The page and an export of the registry of the service have the same series."""
    page = otlp.values_of_page(telemetry.metrics_page()[0].decode())
    assert otlp.values(exported(telemetry.registry)).keys() == page.keys()
