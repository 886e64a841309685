"""The tracing of the service: the spans of calls and of background work, and their export."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind

from milepost.telemetry import otlp, traceparent
from milepost.telemetry.call_trace import Trace, current, current_traceparent
from milepost.telemetry.sampler import NEVER
from milepost.telemetry.span_export import SpanExport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from milepost.telemetry.call_trace import Attributes
    from milepost.telemetry.otlp import Collector
    from milepost.telemetry.sampler import Sampler

FLUSH_TIMEOUT_S: Final = 5.0


def configure_traces(collector: Collector | None, sampler: Sampler, *, version: str) -> Tracing:
    """Return the tracing of the service, which exports sampled spans if there is a collector."""
    if collector is None:
        return Tracing()
    # `Tracing` decides what is sampled, before it makes a span.
    provider = TracerProvider(sampler=ALWAYS_ON, resource=otlp.resource(version))
    provider.add_span_processor(SpanExport(_exporter(collector)))
    return Tracing(provider, sampler)


def _exporter(collector: Collector) -> SpanExporter:
    if collector.protocol == "http/protobuf":
        # Imported by those who use it: it brings an HTTP client of its own.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as HttpExporter,
        )

        return HttpExporter(endpoint=collector.endpoint)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    return OTLPSpanExporter(endpoint=collector.endpoint, insecure=collector.is_plaintext)


class Tracing:
    """Makes spans for the sampled calls, and continues the traces of sampled operations."""

    def __init__(self, provider: TracerProvider | None = None, sampler: Sampler = NEVER) -> None:
        """Record what `sampler` takes; without a provider nothing."""
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("milepost")
        self._sampler = sampler

    def start(
        self,
        method: str,
        caller: str | bytes | None,
        *,
        peer: str = "",
        name: str | None = None,
    ) -> Trace:
        """Start the trace of one call, in that of the caller if it sent a traceparent.

        A call that is not sampled gets no span, and a trace id only when one is needed.

        Args:
            method: the call, for the log.
            caller: the traceparent that came with the call.
            peer: its connection.
            name: of the span; by default the method.
        """
        call = Trace(method, peer, self._tracer)
        current.set(call)
        parent = None if caller is None else traceparent.read(caller)
        if self._tracer is not None and self._sampler.takes(parent):
            call.span = self._tracer.start_span(
                name or method,
                context=None if parent is None else traceparent.context_of(parent),
                kind=SpanKind.SERVER,
            )
        elif parent is not None:
            trace_id, span_id, flags = traceparent.ids_of(parent)
            call.known = trace_id, span_id, 0 if self._tracer is not None else flags
        return call

    @contextlib.contextmanager
    def joining(
        self, name: str, created: str | None, attributes: Callable[[], Attributes]
    ) -> Iterator[tuple[Span | None, str | None]]:
        """Continue the trace of an operation with a request that the service sends.

        Yields a span, if that trace is sampled, and the traceparent to send on. The caller ends the
        span with its outcome; otherwise it ends with the context.

        Args:
            name: of the span.
            created: traceparent of the create of the operation.
            attributes: return those of the span, if there is one.
        """
        work = Trace(tracer=self._tracer)
        parent = traceparent.read(created)
        if parent is not None:
            work.known = traceparent.ids_of(parent)
            if parent.trace_flags.sampled and self._tracer is not None:
                work.span = self._tracer.start_span(
                    name,
                    context=traceparent.context_of(parent),
                    kind=SpanKind.CLIENT,
                    attributes=attributes(),
                )
        token = current.set(work)
        try:
            yield work.span, current_traceparent() if created else None
        finally:
            current.reset(token)
            if work.span is not None and work.span.is_recording():
                work.span.end()

    @contextlib.contextmanager
    def working(self) -> Iterator[Trace]:
        """Trace background work, which begins its span once it has something to do."""
        work = Trace(tracer=self._tracer)
        token = current.set(work)
        try:
            yield work
        finally:
            current.reset(token)
            if work.span is not None and work.span.is_recording():
                work.span.end()

    def stop(self) -> None:
        """Export the remaining spans, within a bounded time."""
        if self._provider is None:
            return
        # The shutdown of the SDK waits for the collector as long as that takes.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(FLUSH_TIMEOUT_S)
