"""The queue of spans that wait for their export."""

import threading
from functools import partial

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from milepost import telemetry
from milepost.telemetry.span_export import SpanExport
from tests.waiting import eventually

MAX_WAITING, BATCH = 8, 4


class Gated(InMemorySpanExporter):
    """An exporter whose first export waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_end = threading.Event(), threading.Event()

    def export(self, spans):
        """Wait, and keep the spans."""
        self.begun.set()
        self.may_end.wait()
        return super().export(spans)

    def has(self, count: int) -> bool:
        """Return True if it has kept so many spans."""
        return len(self.get_finished_spans()) == count


def dropped() -> float:
    """Return how many spans were dropped so far."""
    return telemetry.registry.get_sample_value("milepost_telemetry_spans_dropped_total") or 0.0


@pytest.mark.parametrize("rounds", [1, 2])
def test_every_span_is_exported_or_counted(monkeypatch, rounds):
    """While an export runs, as many spans as fit wait for the next one; the rest are counted."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(MAX_WAITING))
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", str(BATCH))
    exporter, before = Gated(), dropped()
    provider = TracerProvider()
    provider.add_span_processor(SpanExport(exporter))
    tracer = provider.get_tracer("test")
    for number in range(1, rounds + 1):
        exporter.begun.clear()
        exporter.may_end.clear()
        for _ in range(BATCH):
            tracer.start_span("taken").end()
        assert exporter.begun.wait(10)
        for name in ["waiting"] * MAX_WAITING + ["dropped"] * 3:
            tracer.start_span(name).end()
        exporter.may_end.set()
        kept = number * (BATCH + MAX_WAITING)
        eventually(partial(exporter.has, kept), within=10, what=f"{kept} exported spans")
    assert dropped() - before == 3 * rounds
    assert {span.name for span in exporter.get_finished_spans()} == {"taken", "waiting"}
    provider.shutdown()
