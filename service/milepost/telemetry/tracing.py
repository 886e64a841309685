"""Traces: the ids of the current call, and the spans of sampled traces."""

from __future__ import annotations

import contextlib
import random
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.trace import Span, SpanContext

    from milepost.domain.operation import OperationId

FLUSH_TIMEOUT_MS: Final = 5_000
_propagator: Final = TraceContextTextMapPropagator()


def configure_traces(*, endpoint: str | None, ratio: float, version: str) -> Tracing:
    """Return the tracing of the service, which exports sampled spans if there is a collector."""
    provider = TracerProvider(
        # `Tracing.start` samples new traces, before it creates a span.
        sampler=ParentBased(ALWAYS_ON),
        resource=Resource.create({"service.name": "milepost", "service.version": version}),
    )
    if endpoint:
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, ratio if endpoint else 0.0)


class Tracing:
    """Creates spans for the sampled share of new traces, and for the traces that callers sample."""

    def __init__(self, provider: TracerProvider, ratio: float) -> None:
        """Sample `ratio` (0 to 1) of the traces that start here."""
        self._provider = provider
        self._tracer = provider.get_tracer("milepost")
        self._ratio = ratio

    def start(
        self,
        method: str,
        metadata: Mapping[str, str | bytes],
        peer: str = "",
        *,
        protocol: str = "grpc",
    ) -> Span | None:
        """Start the span of one call, as a child of the caller's span if it sent a traceparent.

        A call that is not sampled gets no span, and a trace id only when one is needed.
        Attributes follow the RPC semantic conventions of OpenTelemetry (release candidate).
        """
        parent = metadata.get("traceparent")
        call = Trace(method, peer)
        current.set(call)
        if parent is None and random.random() >= self._ratio:  # noqa: S311 - a sample
            return None
        call.span = self._tracer.start_span(
            method,
            context=_propagator.extract({"traceparent": parent}) if parent else None,
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system.name": protocol, "rpc.method": method},
        )
        return call.span

    @contextlib.contextmanager
    def joining(
        self, name: str, created: str | None, attributes: Mapping[str, str | int]
    ) -> Iterator[tuple[Span | None, str | None]]:
        """Continue the trace of an operation in background work.

        Yields a span, if that trace is sampled, and the traceparent to send on. The caller ends the
        span with its outcome; otherwise it ends with the context.

        Args:
            name: of the span.
            created: traceparent of the create of the operation.
            attributes: of the span.
        """
        work = Trace()
        context = _propagator.extract({"traceparent": created}) if created else None
        parent = trace.get_current_span(context).get_span_context()
        if context is not None and parent.is_valid:
            work.known = _ids_of(parent)
            if parent.trace_flags.sampled:
                work.span = self._tracer.start_span(
                    name, context=context, kind=trace.SpanKind.CLIENT, attributes=dict(attributes)
                )
        token = current.set(work)
        try:
            yield work.span, current_traceparent() if created else None
        finally:
            current.reset(token)
            if work.span is not None and work.span.is_recording():
                work.span.end()

    def record(
        self,
        name: str,
        begun: int,
        attributes: Mapping[str, str | int | bool],
        *,
        created: str | None = None,
    ) -> None:
        """Record a span of background work that has ended.

        Args:
            name: of the span.
            begun: start time in nanoseconds since 1970.
            attributes: of the span.
            created: traceparent of the create of an operation. The span joins that trace if it is
                sampled. Without it the span has a trace of its own.
        """
        context = _propagator.extract({"traceparent": created}) if created else None
        parent = trace.get_current_span(context).get_span_context()
        if created is None or parent.trace_flags.sampled:
            self._tracer.start_span(
                name, context=context, start_time=begun, attributes=dict(attributes)
            ).end()

    def stop(self) -> None:
        """Export the remaining spans, within a bounded time."""
        self._provider.force_flush(FLUSH_TIMEOUT_MS)
        self._provider.shutdown()


def end_span(span: Span, code: str, *, failed: bool) -> None:
    """End the span of a call with its final status code."""
    if span.is_recording():
        span.set_attribute("rpc.response.status_code", code)
        if failed:
            span.set_status(trace.StatusCode.ERROR)
    span.end()


class Trace:
    """A call and its trace. Without a span, its ids are generated on first use."""

    __slots__ = ("_ids", "known", "method", "peer", "span")

    def __init__(self, method: str = "", peer: str = "") -> None:
        self.method = method
        self.peer = peer
        self.span: Span | None = None
        self.known: tuple[str, str, int] | None = None
        self._ids: tuple[str, str, int] | None = None

    @property
    def ids(self) -> tuple[str, str, int]:
        """The trace id and the span id in hexadecimal digits, and the trace flags."""
        if self._ids is None:
            own = self.known or _new_ids()
            self._ids = own if self.span is None else _ids_of(self.span.get_span_context())
        return self._ids


_NOT_ZERO: Final = 1 << 64 | 1
"""Bits that keep both ids from being zero, which W3C Trace Context forbids."""


def _new_ids() -> tuple[str, str, int]:
    digits = (random.getrandbits(192) | _NOT_ZERO).to_bytes(24, "big").hex()
    return digits[:32], digits[32:], 0


def _ids_of(context: SpanContext) -> tuple[str, str, int]:
    return (
        trace.format_trace_id(context.trace_id),
        trace.format_span_id(context.span_id),
        context.trace_flags,
    )


current: Final[ContextVar[Trace | None]] = ContextVar("milepost_trace", default=None)


def current_traceparent() -> str | None:
    """Return the W3C traceparent of the current call."""
    found = current.get()
    return None if found is None else "00-{}-{}-{:02x}".format(*found.ids)


def current_trace_id() -> str:
    """Return the trace id of the current call, which its log lines have."""
    found = current.get()
    return "none" if found is None else found.ids[0]


def current_sample() -> dict[str, str] | None:
    """Return the ids of the current call as an exemplar, or None if its trace is not sampled."""
    found = current.get()
    if found is None or found.span is None or not found.ids[2]:
        return None
    return {"trace_id": found.ids[0], "span_id": found.ids[1]}


def join_trace(operation_id: OperationId, trace_context: str | None) -> None:
    """Set the operation's id on the current span, and link it to the trace of the create."""
    found = current.get()
    span = found.span if found is not None else None
    if span is None or not span.is_recording():
        return
    span.set_attribute("milepost.operation.id", operation_id)
    if trace_context is not None:
        created = trace.get_current_span(
            _propagator.extract({"traceparent": trace_context})
        ).get_span_context()
        if created.trace_id != span.get_span_context().trace_id:
            span.add_link(created)
