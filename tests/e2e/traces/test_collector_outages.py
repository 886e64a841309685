"""A collector that is away, refuses or hangs: calls go on, and the failure can be seen."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.service import Service
from tests.machine import free_port
from tests.otlp import GrpcReceiver
from tests.waiting import eventually

SOON_S: Final = 20.0
FAILED: Final = "milepost_telemetry_exports_failed_total"
DROPPED: Final = "milepost_telemetry_spans_dropped_total"
NOUNS: Final = {"traces": "spans", "metrics": "metrics"}


@contextmanager
def exporting(patch: pytest.MonkeyPatch, folder: Path, **variables: str) -> Iterator[Service]:
    """A service that exports every span and its metrics, quickly."""
    for name, value in {
        "TRACES_SAMPLER": "always_on",
        "BSP_SCHEDULE_DELAY": "50",
        "METRIC_EXPORT_INTERVAL": "100",
        "EXPORTER_OTLP_TIMEOUT": "0.3",
        **variables,
    }.items():
        patch.setenv(f"OTEL_{name}", value)
    with Service(f"sqlite:///{folder / 'milepost.db'}", folder) as service:
        yield service


def create_until_both_fail(service: Service, count: int) -> None:
    """Make spans until exports of each signal have failed so often."""
    alice = service.client("alice")

    def both_failed() -> bool:
        alice.create()
        return all(service.metric(FAILED, signal=signal) >= count for signal in NOUNS)

    eventually(both_failed, within=SOON_S, what="failed exports of both signals")


def test_collector_that_is_away_and_returns(monkeypatch, tmp_path):
    """Failed exports of each signal are counted, and logged once with the cause of each."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with exporting(monkeypatch, tmp_path, EXPORTER_OTLP_ENDPOINT=address) as service:
        create_until_both_fail(service, 3)
        for noun in NOUNS.values():
            line = service.logged(event=f"{noun} not exported")
            assert (line["level"], "UNAVAILABLE" in line["problem"]) == ("error", True), line
        with GrpcReceiver(port):
            service.client("alice").create()
            for noun in NOUNS.values():
                service.logged(event=f"{noun} exported again")
            failed = service.metric(FAILED)
            service.client("alice").create()
            assert service.metric(FAILED) == failed
        assert service.metric(DROPPED) == 0
    assert service.log_lines(event="library reported a warning") == []
    assert service.log_lines(event="library reported an error") == []


def test_collector_that_refuses(monkeypatch, tmp_path, http_collector):
    """A collector that answers 401 is a failed export, and the log has its answer once."""
    with exporting(
        monkeypatch,
        tmp_path,
        EXPORTER_OTLP_ENDPOINT=http_collector.url,
        EXPORTER_OTLP_PROTOCOL="http/protobuf",
    ) as service:
        create_until_both_fail(service, 2)
        for noun in NOUNS.values():
            assert "401" in service.logged(event=f"{noun} not exported")["problem"]


def test_collector_that_hangs_fills_the_queue(monkeypatch, tmp_path):
    """Spans for which the queue has no room are counted; calls go on, and the log says so once."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        exporting(
            monkeypatch,
            tmp_path,
            EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}",
            EXPORTER_OTLP_TIMEOUT="60",
            BSP_MAX_QUEUE_SIZE="8",
            BSP_MAX_EXPORT_BATCH_SIZE="4",
        ) as service,
    ):
        alice = service.client("alice")
        for _ in range(20):
            alice.create()
        assert service.metric(DROPPED) >= 8
        line = service.logged(event="spans dropped")
        assert (line["level"], line["max_queue_size"]) == ("error", 8)
