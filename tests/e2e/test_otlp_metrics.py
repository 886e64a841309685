"""Metrics over OTLP: a collector gets what a scrape of the same service shows."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from milepost import __version__
from tests import otlp
from tests.e2e.processes import PROCESSES, create_on_new_connections, wait_until_all_ready
from tests.e2e.service import Service
from tests.e2e.traces.collector import under
from tests.machine import free_port
from tests.otlp import GrpcReceiver, HttpReceiver, Receiver
from tests.waiting import eventually

SOON_S = 10.0
QUICK_MS = "100"
VOLATILE = re.compile(
    "milepost_(event_loop_lag|batcher_wait|sweeper|operations_oldest|operations_active|rpcs_running)"
)
"""Metrics that change without calls."""
CREATE = ("method", "milepost.v1.OperationService/CreateOperation")


@pytest.fixture(params=[GrpcReceiver, HttpReceiver], ids=["grpc", "http"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    """A receiver of each protocol."""
    with request.param() as receiver:
        yield receiver


@contextmanager
def exporting(
    patch: pytest.MonkeyPatch, folder: Path, variables: dict[str, str], url: str = "", **settings
) -> Iterator[Service]:
    """A service with standard variables of OpenTelemetry."""
    for name, value in variables.items():
        patch.setenv(f"OTEL_{name}", value)
    with Service(url or f"sqlite:///{folder / 'milepost.db'}", folder, **settings) as service:
        yield service


def stable(values: dict[otlp.Series, float]) -> dict[otlp.Series, float]:
    """Return the values that change with calls only."""
    return {key: value for key, value in values.items() if VOLATILE.match(key[0]) is None}


def scraped(service: Service) -> dict[otlp.Series, float]:
    """Return the values that a scrape shows."""
    return otlp.values_of_page(service.probe("/metrics")[1])


def exemplars_of_creates(export: ExportMetricsServiceRequest) -> set[str]:
    """Return the trace ids of the durations of creates."""
    points = otlp.metrics(export)["milepost_rpc_duration_seconds"].histogram.data_points
    return {
        each.trace_id.hex()
        for point in points
        if CREATE in {(item.key, item.value.string_value) for item in point.attributes}
        for each in point.exemplars
    }


def test_collector_gets_what_a_scrape_shows(monkeypatch, tmp_path, receiver):
    """Every series of the page is exported with its value, as metrics of this service."""
    variables = {
        "EXPORTER_OTLP_METRICS_ENDPOINT": f"{receiver.url}{receiver.path}",
        "EXPORTER_OTLP_PROTOCOL": receiver.protocol,
        "EXPORTER_OTLP_HEADERS": "x-tenant=blue",
        "METRIC_EXPORT_INTERVAL": QUICK_MS,
        "RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    with exporting(monkeypatch, tmp_path, variables) as service:
        alice = service.client("alice")
        for status in ("COMPLETED", "FAILED", "CANCELLED"):
            alice.create_in(status)

        def current():
            """Return an export with all series of the page, and its values."""
            page, export = scraped(service), receiver.exports[-1]
            found = otlp.values(export)
            return export if (found.keys(), stable(found)) == (page.keys(), stable(page)) else None

        eventually(lambda: receiver.exports, within=SOON_S, what="an export")
        export = eventually(current, within=SOON_S, what="an export with the values of the page")
    described = otlp.resource(export)
    assert (described["service.name"], described["service.version"]) == ("milepost", __version__)
    assert described["deployment.environment.name"] == "test"
    assert described["service.instance.id"]
    assert receiver.headers[-1]["x-tenant"] == "blue"


def test_last_values_are_exported_at_the_end(monkeypatch, tmp_path, receiver):
    """A service that stops exports once more, with the traces of sampled calls as exemplars."""
    variables = {
        "EXPORTER_OTLP_ENDPOINT": receiver.url,
        "EXPORTER_OTLP_PROTOCOL": receiver.protocol,
    }
    with exporting(monkeypatch, tmp_path, variables) as service:
        alice = service.client("alice")
        trace_id, _ = under(alice)
        alice.create_in("COMPLETED")
        page = scraped(service)
        assert receiver.exports == []
    (export,) = receiver.exports
    assert stable(otlp.values(export)) == stable(page)
    assert exemplars_of_creates(export) == {trace_id}


def test_collector_that_is_away_is_logged_once(monkeypatch, tmp_path):
    """Without its collector the service serves, says so once, and exports when it is back."""
    port = free_port()
    variables = {
        "EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{port}",
        "EXPORTER_OTLP_TIMEOUT": "0.3",
        "METRIC_EXPORT_INTERVAL": QUICK_MS,
    }
    with exporting(monkeypatch, tmp_path, variables) as service:
        line = service.logged(event="metrics not exported")
        assert (line["level"], "UNAVAILABLE" in line["problem"]) == ("error", True)
        service.client("alice").create()
        with GrpcReceiver(port) as receiver:
            eventually(lambda: receiver.exports, within=2 * SOON_S, what="exported again")
            service.logged(event="metrics exported again")
        assert len(service.log_lines(event="metrics not exported")) == 1
    assert service.log_lines(event="library reported a warning") == []
    assert service.log_lines(event="library reported an error") == []


def test_collector_of_the_settings_gets_metrics_on_request_only(monkeypatch, tmp_path):
    """MILEPOST_OTLP_ENDPOINT is for traces, unless OTEL_METRICS_EXPORTER asks for metrics."""
    with GrpcReceiver() as receiver:
        for exporter, count in (("", 0), ("otlp", 1)):
            variables = {"METRICS_EXPORTER": exporter}
            with exporting(monkeypatch, tmp_path, variables, otlp_endpoint=receiver.url):
                pass
            assert len(receiver.exports) == count, exporter


@pytest.mark.timeout(180)  # it starts two processes
def test_every_process_exports_its_own_metrics(monkeypatch, tmp_path, postgres_url):
    """Each process is an instance of its own; together they have what the one page shows."""
    with GrpcReceiver() as receiver:
        variables = {
            "EXPORTER_OTLP_METRICS_ENDPOINT": receiver.url,
            "RESOURCE_ATTRIBUTES": "service.instance.id=here",
        }
        with exporting(
            monkeypatch, tmp_path, variables, postgres_url, processes=str(PROCESSES)
        ) as service:
            wait_until_all_ready(service)
            create_on_new_connections(service, service.client("alice"), 8)
        found = {
            otlp.resource(each)["service.instance.id"]: otlp.values(each)
            for each in receiver.exports
        }
    assert found.keys() == {"here-0", "here-1", "here-2"}
    created = ("milepost_transitions_total", frozenset({("transition", "create")}))
    assert found["here-1"][created] + found["here-2"][created] == 8
    ready = ("milepost_process_ready", frozenset({("process", "1")}))
    assert ready in found["here-0"]
    assert ready not in found["here-1"]
