"""The function of a Python `Worker` runs in the trace that created its operation."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from milepost_client import Milepost, SyncWork, Work
from tests.e2e.service import Service
from tests.e2e.traces.collector import ARRIVES_WITHIN_S, Collector, attributes
from tests.e2e.working import SOON_S, working
from tests.waiting import until

SPAN = "resize"


@pytest.fixture
def program() -> Iterator[tuple[trace.Tracer, InMemorySpanExporter]]:
    """The tracer of the program that has the worker and the caller, and its ended spans."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer(__name__), exporter
    provider.shutdown()


@pytest.fixture
async def creator(traced: Service) -> AsyncIterator[Milepost]:
    """A client of a caller of the traced service."""
    key = traced.api_key(f"alice-{uuid.uuid4().hex}")
    async with Milepost(traced.address, api_key=key) as milepost:
        yield milepost


def functions(tracer: trace.Tracer) -> dict[str, Any]:
    """Return functions of both kinds, which open a span and make a call in it."""

    async def in_loop(work: Work) -> str:
        with tracer.start_as_current_span(SPAN):
            await asyncio.sleep(0)
            await work.complete(work.operation.id)
        return work.operation.id

    def in_thread(work: SyncWork) -> str:
        with tracer.start_as_current_span(SPAN):
            work.complete(work.operation.id)
        return work.operation.id

    return {"coroutine": in_loop, "thread": in_thread}


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_function_runs_in_the_creating_trace(
    traced: Service,
    spans: Collector,
    creator: Milepost,
    program: tuple[trace.Tracer, InMemorySpanExporter],
    kind: str,
):
    """Spans of each function, and its calls, are in the trace of the create of its operation."""
    tracer, exporter = program
    function = f"test.{uuid.uuid4().hex}"
    created: dict[str, str] = {}
    async with working(traced, function, functions(tracer)[kind], concurrency=2):
        for name in ("first", "second"):
            with tracer.start_as_current_span(name) as span:
                operation = await creator.create(function)
            created[operation.id] = f"{span.get_span_context().trace_id:032x}"
        for operation_id in created:
            await creator.result(operation_id, timeout=SOON_S)
    opened = [span for span in exporter.get_finished_spans() if span.name == SPAN]
    assert {f"{span.context.trace_id:032x}" for span in opened} == set(created.values())
    for operation_id, trace_id in created.items():
        (own,) = [span for span in opened if f"{span.context.trace_id:032x}" == trace_id]
        known = (await creator.get(operation_id)).traceparent
        assert known is not None
        assert known.split("-")[1] == trace_id
        assert own.parent is not None
        assert f"{own.parent.span_id:016x}" == known.split("-")[2]
        end = await until_end(spans, trace_id)
        assert attributes(end)["milepost.operation.id"] == operation_id
        assert end.parent_span_id.hex() == f"{own.context.span_id:016x}"


async def test_trace_that_is_not_sampled_is_left_to_the_worker(
    traced: Service, creator: Milepost, program: tuple[trace.Tracer, InMemorySpanExporter]
):
    """A function whose create was not sampled opens a trace of its own, which is recorded."""
    tracer, exporter = program
    function = f"test.{uuid.uuid4().hex}"
    unsampled = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=True))
    async with working(traced, function, functions(tracer)["coroutine"]):
        with trace.use_span(unsampled):
            operation = await creator.create(function)
        await creator.result(operation.id, timeout=SOON_S)
    assert operation.traceparent is None
    (own,) = [span for span in exporter.get_finished_spans() if span.name == SPAN]
    assert own.parent is None


async def until_end(spans: Collector, trace_id: str) -> Any:
    """Wait for the call that completes the operation of a trace."""

    def ends() -> list[Any]:
        return [span for span in spans.calls(trace_id) if span.name.endswith("CompleteOperation")]

    await until(lambda: bool(ends()), ARRIVES_WITHIN_S)
    (end,) = ends()
    return end
