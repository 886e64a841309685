"""The thread that exports metrics: where to, and how it ends."""

import socket
import time

import pytest
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, Counter

from milepost.telemetry import metrics_export
from milepost.telemetry.metrics_export import MetricsExport, exporter_to, metrics_collector
from milepost.telemetry.otlp import Collector
from tests.machine import slowdown
from tests.otlp import GrpcReceiver
from tests.waiting import until

ENDPOINT, OWN, SETTING = "http://general:1", "http://metrics:2", "http://setting:3"


def export_to(url, interval_s):
    """Return the export of a small registry to a receiver."""
    registry = CollectorRegistry()
    Counter("calls_total", "Calls", registry=registry)
    exporter = exporter_to(Collector(endpoint=url, protocol="grpc"))
    return MetricsExport(exporter, registry.collect, Resource({}), interval_s=interval_s)


@pytest.mark.parametrize(
    ("variables", "setting", "endpoint"),
    [
        ({}, None, None),
        ({}, SETTING, None),
        ({"METRICS_EXPORTER": "otlp"}, SETTING, SETTING),
        ({"METRICS_EXPORTER": "otlp"}, None, None),
        (
            {"METRICS_EXPORTER": "otlp", "EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            SETTING,
            f"{SETTING}/v1/metrics",
        ),
        ({"EXPORTER_OTLP_ENDPOINT": ENDPOINT}, None, ENDPOINT),
        ({"EXPORTER_OTLP_ENDPOINT": ENDPOINT}, SETTING, ENDPOINT),
        ({"EXPORTER_OTLP_ENDPOINT": ENDPOINT, "METRICS_EXPORTER": "none"}, SETTING, None),
        ({"EXPORTER_OTLP_ENDPOINT": ENDPOINT, "METRICS_EXPORTER": "otlp"}, SETTING, SETTING),
        (
            {"EXPORTER_OTLP_METRICS_ENDPOINT": OWN, "METRICS_EXPORTER": "otlp"},
            SETTING,
            OWN,
        ),
        ({"EXPORTER_OTLP_ENDPOINT": ENDPOINT, "SDK_DISABLED": "true"}, None, None),
    ],
)
def test_collector_of_the_metrics(monkeypatch, variables, setting, endpoint):
    """The variable of metrics precedes the setting, if that is asked for, and the general one."""
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_{name}", value)
    found = metrics_collector(setting)
    assert (None if found is None else found.endpoint) == endpoint


@pytest.mark.parametrize(
    ("text", "seconds"), [("250", 0.25), ("", 60.0), ("often", 60.0), ("0", 60.0), ("-1", 60.0)]
)
def test_interval(monkeypatch, text, seconds):
    """The standard variable has milliseconds; without a valid value it is a minute."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", text)
    assert metrics_export._export_interval_s() == seconds


async def test_exports_at_an_interval_and_at_the_end():
    """Exports follow each other, and the last one is made when the export ends."""
    with GrpcReceiver() as receiver:
        async with export_to(receiver.url, 0.05):
            await until(lambda: len(receiver.exports) >= 3)
        count = len(receiver.exports)
        async with export_to(receiver.url, 3_600):
            pass
        assert len(receiver.exports) == count + 1


async def test_end_does_not_wait_for_a_collector_that_hangs(monkeypatch):
    """The end is bounded, although the collector accepts the connection and never answers."""
    monkeypatch.setattr(metrics_export, "FLUSH_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        async with export_to(url, 3_600):
            pass
        assert time.monotonic() - begun < 5 * slowdown()
