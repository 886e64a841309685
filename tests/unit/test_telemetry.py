"""Traces, metrics and log lines without a collector."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from milepost import telemetry
from milepost.domain.transitions import Transition
from milepost.telemetry import Tracing

METHOD = "milepost.v1.OperationService/GetOperation"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """The exporter of the spans."""
    return InMemorySpanExporter()


def tracing(spans: InMemorySpanExporter, ratio: float) -> Tracing:
    """Tracing that samples this share of new traces."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Tracing(provider, ratio)


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
    made = telemetry.configure_traces(endpoint=None, ratio=1.0, version="0")
    assert made.start(METHOD, {}) is None
    made.stop()


@pytest.mark.parametrize(("ratio", "recorded"), [(0.0, 0), (1.0, 50)])
def test_ratio_is_that_of_new_traces(spans, ratio, recorded):
    """The sampled share of new traces is recorded."""
    made = tracing(spans, ratio)
    found = [made.start(METHOD, {}) for _ in range(50)]
    assert sum(span is not None for span in found) == recorded


def test_sampling_of_the_caller_is_kept(spans):
    """A trace of a caller is recorded if the caller samples it."""
    made = tracing(spans, 0.0)
    span = made.start(METHOD, {"traceparent": PARENT})
    assert span is not None
    assert span.is_recording()
    assert trace.format_trace_id(span.get_span_context().trace_id) == PARENT.split("-")[1]
    quiet = made.start(METHOD, {"traceparent": PARENT[:-1] + "0"})
    assert quiet is not None
    assert not quiet.is_recording()
    assert quiet.get_span_context().trace_id == span.get_span_context().trace_id


@pytest.mark.parametrize(("failed", "status"), [(True, "ERROR"), (False, "UNSET")])
def test_span_ends_with_its_code(spans, failed, status):
    """A span has the code of its call, and the status ERROR only if the service failed."""
    span = tracing(spans, 1.0).start(METHOD, {})
    assert span is not None
    telemetry.end_span(span, "ABORTED", failed=failed)
    (ended,) = spans.get_finished_spans()
    assert ended.attributes is not None
    assert ended.attributes["rpc.response.status_code"] == "ABORTED"
    assert ended.status.status_code.name == status


def test_every_call_has_a_trace_id(spans):
    """A call that is not sampled has a trace id too, the same throughout the call."""
    made = tracing(spans, 0.0)
    ids = set()
    for _ in range(3):
        made.start(METHOD, {})
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
    made.start(METHOD, {})
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
    span = tracing(spans, ratio).start(METHOD, {})
    if span is not None:
        telemetry.end_span(span, "OK", failed=False)
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
    ],
)
def test_known_labels_are_exported_before_they_are_counted(metric, label, values):
    """A counter whose labels are known exports each of them from the start."""
    for value in values:
        assert telemetry.registry.get_sample_value(metric, {label: value}) is not None
