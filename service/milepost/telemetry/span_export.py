"""The export of spans to a collector in batches, in a thread of the SDK."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from milepost.telemetry.export_report import ExportReport
from milepost.telemetry.library_output import log_on_loop
from milepost.telemetry.logs import log
from milepost.telemetry.metrics import record_dropped_span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

EXPORT_DELAY_MS: Final = 250
"""Longest wait of a span for its export, so that a killed process loses only the last moment."""
DEFAULT_MAX_QUEUE_SIZE: Final = 2_048


class SpanExport(BatchSpanProcessor):
    """Exports spans. Those that do not fit into the queue are dropped, counted and logged.

    The queue of the SDK drops the oldest span instead, and counts nothing by default.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        """Start the thread; the ``OTEL_BSP_`` variables apply."""
        self._max_waiting = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or DEFAULT_MAX_QUEUE_SIZE)
        self._waiting = 0
        self._is_dropping = False
        self._lock = threading.Lock()  # batchers end spans in threads of their own
        delay = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else EXPORT_DELAY_MS
        super().__init__(
            _ReportedExporter(exporter, self._take),
            max_queue_size=self._max_waiting,
            schedule_delay_millis=delay,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Queue an ended span, or drop it if the queue is full."""
        with self._lock:
            has_room = self._waiting < self._max_waiting
            self._waiting += has_room
        if has_room:
            super().on_end(span)
        else:
            self._drop()

    def _drop(self) -> None:
        record_dropped_span()
        if not self._is_dropping:
            limit = self._max_waiting
            log_on_loop(lambda: log.error("spans dropped", max_queue_size=limit))
        self._is_dropping = True

    def _take(self, count: int) -> None:
        """Make room for as many spans as leave the queue."""
        with self._lock:
            self._waiting -= count
            self._is_dropping = self._is_dropping and self._waiting > 0


class _ReportedExporter(SpanExporter):
    """Exports with another exporter, and reports the outcome."""

    def __init__(self, exporter: SpanExporter, take: Callable[[int], None]) -> None:
        self._exporter = exporter
        self._take = take
        self._report = ExportReport("traces")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._take(len(spans))
        succeeded = self._report.run(
            lambda: self._exporter.export(spans) is SpanExportResult.SUCCESS
        )
        return SpanExportResult.SUCCESS if succeeded else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
