"""Traces, metrics and log lines without a collector."""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanContext

from milepost import telemetry
from milepost.domain.transitions import Transition
from milepost.telemetry import Sampler, Tracing
from milepost.telemetry import tracing as tracing_module
from milepost.telemetry.otlp import Collector
from milepost.telemetry.span_export import EXPORT_DELAY_MS

METHOD = "milepost.v1.OperationService/GetOperation"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """The exporter of the spans."""
    return InMemorySpanExporter()


def tracing(spans: InMemorySpanExporter, ratio: float) -> Tracing:
    """Tracing that samples this share of new traces."""
    provider = TracerProvider(sampler=ALWAYS_ON)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Tracing(provider, Sampler(ratio=ratio))


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[str]]]:
    """The log lines since the last call."""
    before = structlog.get_config()

    def look() -> list[str]:
        return capfd.readouterr().err.splitlines()

    yield look
    structlog.configure(**before)


def test_without_a_collector_nothing_is_recorded():
    """A service without a collector records no trace, and stops normally."""
    made = telemetry.configure_traces(None, Sampler(ratio=1.0), version="0")
    assert made.start(METHOD, None).span is None
    assert made.start(METHOD, PARENT).span is None
    assert telemetry.current_traceparent() == PARENT
    made.stop()


@pytest.mark.parametrize(("chosen", "expected"), [(None, EXPORT_DELAY_MS), ("40", 40)])
def test_spans_are_exported_soon(monkeypatch, chosen, expected):
    """A span waits for its export for a quarter of a second, or for the time that is configured."""
    monkeypatch.delenv("OTEL_BSP_SCHEDULE_DELAY", raising=False)
    if chosen:
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", chosen)
    nowhere = Collector(endpoint="http://127.0.0.1:1", protocol="grpc")
    made = telemetry.configure_traces(nowhere, Sampler(ratio=0.0), version="0")
    assert made._provider is not None
    (processor,) = made._provider._active_span_processor._span_processors
    assert isinstance(processor, BatchSpanProcessor)
    assert processor._batch_processor._schedule_delay_millis == expected
    made.stop()


def test_stop_does_not_wait_for_a_collector_that_hangs(monkeypatch):
    """The service stops although its collector does not answer."""
    released = threading.Event()

    class Hanging(InMemorySpanExporter):
        def export(self, spans):
            released.wait()
            return super().export(spans)

    monkeypatch.setattr(tracing_module, "FLUSH_TIMEOUT_S", 0.05)
    provider = TracerProvider(sampler=ALWAYS_ON)
    provider.add_span_processor(BatchSpanProcessor(Hanging()))
    made = Tracing(provider, Sampler(ratio=1.0))
    made.start(METHOD, None).end({})
    made.stop()
    assert not released.is_set()
    released.set()
    provider.shutdown()


@pytest.mark.parametrize(("ratio", "recorded"), [(0.0, 0), (1.0, 50)])
def test_ratio_is_that_of_new_traces(spans, ratio, recorded):
    """The sampled share of new traces is recorded."""
    made = tracing(spans, ratio)
    found = [made.start(METHOD, None) for _ in range(50)]
    assert sum(call.span is not None for call in found) == recorded


def test_sampler_of_the_caller_is_kept(spans):
    """A trace of a caller is recorded if the caller samples it."""
    made = tracing(spans, 0.0)
    span = made.start(METHOD, PARENT).span
    assert span is not None
    assert span.is_recording()
    assert trace.format_trace_id(span.get_span_context().trace_id) == PARENT.split("-")[1]
    quiet = made.start(METHOD, PARENT[:-1] + "0")
    assert quiet.span is None
    assert quiet.ids == (*PARENT.split("-")[1:3], 0)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_malformed_traceparent_is_sampled_like_none(spans, ratio):
    """A malformed traceparent does not force the call to be recorded."""
    for broken in ("x", PARENT + "-00", PARENT.upper(), "ff" + PARENT[2:], b"\x00", ""):
        assert (tracing(spans, ratio).start(METHOD, broken).span is not None) == bool(ratio)


def test_traceparent_of_a_later_version_is_read(spans):
    """A traceparent of a later version may have more fields (W3C Trace Context)."""
    call = tracing(spans, 0.0).start(METHOD, "01" + PARENT[2:] + "-more")
    assert call.ids[0] == PARENT.split("-")[1]


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_sampler_that_follows_no_caller_takes_its_share_of_trace_ids(ratio):
    """A sampler that does not follow the caller decides by the trace id, on every replica alike."""
    sampler = Sampler(ratio=ratio, follows_caller=False)
    for low, is_below in ((0x7FFFFFFFFFFFFFFF, 0.5), (0x8000000000000000, 0.6)):
        caller = SpanContext(1 << 64 | low, 1, is_remote=True)
        assert sampler.takes(caller) == (ratio >= is_below)


@pytest.mark.parametrize(("error", "status"), [("ABORTED", "ERROR"), (None, "UNSET")])
def test_span_ends_with_its_code(spans, error, status):
    """A span has the code of its call, and the status ERROR only if the service failed."""
    tracing(spans, 1.0).start(METHOD, None).end({"rpc.response.status_code": "X"}, error=error)
    (ended,) = spans.get_finished_spans()
    assert ended.attributes is not None
    assert ended.attributes["rpc.response.status_code"] == "X"
    assert ended.attributes.get("error.type") == error
    assert ended.status.status_code.name == status


def test_every_call_has_a_trace_id(spans):
    """A call that is not sampled has a trace id too, the same throughout the call."""
    made = tracing(spans, 0.0)
    ids = set()
    for _ in range(3):
        made.start(METHOD, None)
        assert telemetry.current_trace_id() == telemetry.current_trace_id()
        traceparent = telemetry.current_traceparent()
        assert traceparent is not None
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", traceparent)
        assert traceparent.split("-")[1] == telemetry.current_trace_id()
        ids.add(telemetry.current_trace_id())
    assert len(ids) == 3


def test_lines_are_json(lines, spans):
    """A line is one JSON object with event, level, time and the trace of its call."""
    telemetry.configure_logs(level="info", as_json=True)
    made = tracing(spans, 0.0)
    made.start(METHOD, None)
    structlog.get_logger().info("something happened", operation_id="op_1", text="ä\n")
    structlog.get_logger().debug("not important")
    (line,) = lines()
    found = json.loads(line)
    assert (found["event"], found["level"]) == ("something happened", "info")
    assert (found["operation_id"], found["text"]) == ("op_1", "ä\\n")
    assert found["trace_id"] == telemetry.current_trace_id()
    assert found["timestamp"].endswith("Z")


def _fail() -> None:
    raise ZeroDivisionError("on purpose")


def test_exceptions_stay_on_their_line(lines):
    """The traceback of a defect is part of its one line."""
    telemetry.configure_logs(level="info", as_json=True)
    try:
        _fail()
    except ZeroDivisionError:
        structlog.get_logger().exception("call failed")
    (line,) = lines()
    assert "ZeroDivisionError: on purpose" in json.loads(line)["exception"]


def test_lines_are_text_without_json(lines):
    """Without JSON a line is text."""
    telemetry.configure_logs(level="warning", as_json=False)
    structlog.get_logger().warning("something happened", operation_id="op_1")
    (line,) = lines()
    assert "something happened" in line
    assert "op_1" in line


async def test_lines_of_one_loop_iteration_keep_their_order(lines):
    """Lines of one iteration of the event loop are written together, in order."""
    telemetry.configure_logs(level="info", as_json=True)
    log = structlog.get_logger()
    for number in range(10):
        log.info("a line", number=number)
    assert lines() == []
    await asyncio.sleep(0)
    assert [json.loads(line)["number"] for line in lines()] == list(range(10))


def test_metrics_page():
    """The page of metrics has every metric in the text format of Prometheus."""
    telemetry.record_call(METHOD, "OK", 0.002)
    content, content_type = telemetry.metrics_page("text/plain")
    page = content.decode()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    for name in (
        "milepost_rpc_duration_seconds",
        "milepost_rpcs_running",
        "milepost_transitions_total",
        "milepost_operation_duration_seconds",
    ):
        assert f"# TYPE {name.removesuffix('_total')}" in page
    assert f'milepost_rpc_duration_seconds_count{{code="OK",method="{METHOD}"}}' in page
    assert "_created{" not in page


@pytest.mark.parametrize(("ratio", "exemplars"), [(0.0, 0), (1.0, 1)])
def test_sampled_calls_are_exemplars(spans, ratio, exemplars):
    """In OpenMetrics, the duration of a sampled call has its trace id as the exemplar."""
    tracing(spans, ratio).start(METHOD, None).end({})
    telemetry.record_call(METHOD, f"SAMPLED_{exemplars}", 0.002)
    page, content_type = telemetry.metrics_page(
        "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5"
    )
    assert content_type.startswith("application/openmetrics-text")
    found = re.findall(rf'SAMPLED_{exemplars}",le.*# {{(.*)}}', page.decode())
    ids = telemetry.current_trace_id()
    assert [f'trace_id="{ids}"' in each for each in found] == [True] * exemplars
    assert page.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("metric", "label", "values"),
    [
        ("milepost_transitions_total", "transition", [each.value for each in Transition]),
        (
            "milepost_progress_updates_total",
            "fate",
            ["received", "coalesced", "committed", "refused"],
        ),
        ("milepost_telemetry_exports_failed_total", "signal", ["traces", "metrics"]),
    ],
)
def test_known_labels_are_exported_before_they_are_counted(metric, label, values):
    """A counter whose labels are known exports each of them from the start."""
    for value in values:
        assert telemetry.registry.get_sample_value(metric, {label: value}) is not None
