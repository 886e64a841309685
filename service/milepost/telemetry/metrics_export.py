"""The export of metrics to a collector at an interval, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, OTELResourceDetector, Resource

from milepost.telemetry import otlp
from milepost.telemetry.export_report import ExportReport
from milepost.telemetry.library_output import captured_library_output
from milepost.telemetry.metrics import registry
from milepost.telemetry.otlp_metrics import Period, metrics_data

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from opentelemetry.sdk.metrics.export import MetricExporter
    from prometheus_client import Metric

DEFAULT_INTERVAL_S: Final = 60.0
FLUSH_TIMEOUT_S: Final = 3.0
"""Time for the last export, when the service stops."""
AWAY_TIMEOUT_S: Final = 0.5
"""The same while the collector does not take exports, and for an export that is aborted."""
_START: Final = time.time_ns()


@contextlib.asynccontextmanager
async def exporting_metrics(
    endpoint: str | None,
    *,
    version: str,
    process: int | None = None,
    collect: Callable[[], Iterable[Metric]] = registry.collect,
) -> AsyncIterator[None]:
    """Export metrics inside of the context, and once more at its end, if there is a collector.

    Args:
        endpoint: the collector of the settings.
        version: of the service.
        process: number of this process, if it is one of several.
        collect: returns the metrics.
    """
    collector = metrics_collector(endpoint)
    if collector is None:
        yield
        return
    resource = _of_process(otlp.resource(version), process)
    export = MetricsExport(
        exporter_to(collector), collect, resource, interval_s=_export_interval_s()
    )
    async with export:
        yield


def metrics_collector(endpoint: str | None) -> otlp.Collector | None:
    """Return the destination of the metrics, or None if they are not exported.

    The collector of the settings gets them only if OTEL_METRICS_EXPORTER asks for it: often it
    takes traces alone, as Jaeger does. The variable of the metrics precedes it.
    """
    is_asked_for = "otlp" in os.environ.get("OTEL_METRICS_EXPORTER", "")
    has_own = bool(os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"))
    return otlp.collector("metrics", endpoint if is_asked_for and not has_own else None)


def exporter_to(collector: otlp.Collector) -> MetricExporter:
    """Return the exporter to a collector; only its library is imported."""
    if collector.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc  # noqa: PLC0415

        return grpc.OTLPMetricExporter(endpoint=collector.endpoint, insecure=collector.is_plaintext)
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http  # noqa: PLC0415

    return http.OTLPMetricExporter(endpoint=collector.endpoint)


def _of_process(resource: Resource, process: int | None) -> Resource:
    """Return the resource with an id that no other process has; the SDK makes a random one.

    One that the environment gives to several processes gets the number of the process.
    """
    given = OTELResourceDetector().detect().attributes.get(SERVICE_INSTANCE_ID)
    if given is None or process is None:
        return resource
    return resource.merge(Resource({SERVICE_INSTANCE_ID: f"{given}-{process}"}))


def _export_interval_s() -> float:
    """Return the standard interval, which is given in milliseconds."""
    try:
        interval_s = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")) / 1_000
    except ValueError:
        return DEFAULT_INTERVAL_S
    return interval_s if 0 < interval_s <= threading.TIMEOUT_MAX else DEFAULT_INTERVAL_S


class MetricsExport:
    """Exports what `collect` returns, at an interval and once more at the end.

    The exporter repeats a failed export by itself, within the timeout of
    OTEL_EXPORTER_OTLP_TIMEOUT.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        collect: Callable[[], Iterable[Metric]],
        resource: Resource,
        *,
        interval_s: float,
    ) -> None:
        """Prepare the thread."""
        self._exporter = exporter
        self._collect = collect
        self._resource = resource
        self._interval_s = interval_s
        self._report = ExportReport("metrics")
        self._stopping = threading.Event()
        self._last = _START
        self._thread = threading.Thread(
            target=self._run, name="milepost-metrics-export", daemon=True
        )

    async def __aenter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Export once more and end, within a bounded time."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._stopping.set()
        self._thread.join(AWAY_TIMEOUT_S if self._report.is_away else FLUSH_TIMEOUT_S)
        with captured_library_output():
            self._exporter.shutdown()
        self._thread.join(AWAY_TIMEOUT_S)

    # --- in the thread ---

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self._export()
        self._export()

    def _export(self) -> None:
        period = Period(start=_START, last=self._last, now=time.time_ns())
        if self._report.run(lambda: self._is_taken(period)):
            self._last = period.now

    def _is_taken(self, period: Period) -> bool:
        data = metrics_data(self._collect(), self._resource, period)
        return self._exporter.export(data) is MetricExportResult.SUCCESS
