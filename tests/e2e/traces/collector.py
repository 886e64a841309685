"""A collector of traces, and calls under a trace of their own."""

import secrets
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.canaries import CANARIES
from tests.e2e.client import Client
from tests.waiting import eventually

ARRIVES_WITHIN_S = 20.0
CANARY = "canary51c2"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A collector that keeps every span it receives."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[str] = []

    def Export(self, request, _context):  # noqa: N802 - named by the proto
        """Store the spans of a request."""
        self.store(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def store(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        """Store the spans of a request."""
        CANARIES.saw("a span", request.SerializeToString())
        for resource in request.resource_spans:
            self.resources.append(str(resource.resource))
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def of(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace."""
        return [span for span in self.spans if span.trace_id.hex() == trace_id]

    def named(self, trace_id: str, name: str) -> list[Span]:
        """Return the spans of a trace that have this name."""
        return [span for span in self.of(trace_id) if span.name == name]

    def calls(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace that are calls of the service."""
        return [span for span in self.of(trace_id) if span.kind == Span.SPAN_KIND_SERVER]

    def one(self, trace_id: str, name: str | None = None) -> Span:
        """Wait for the only span of a trace with this name and return it; by default its call."""
        found: list[Span] = eventually(
            lambda: self.calls(trace_id) if name is None else self.named(trace_id, name),
            within=ARRIVES_WITHIN_S,
            what=f"a span of {trace_id}",
        )
        (span,) = found
        return span


def under(client: Client, *, sampled: bool = True) -> tuple[str, str]:
    """Call the client under a new trace and return its trace id and span id."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    header = ("traceparent", f"00-{trace_id}-{span_id}-0{int(sampled)}")
    client.metadata = (("authorization", f"Bearer {client.key}"), header)
    return trace_id, span_id


def attributes(span: Span) -> Mapping[str, Any]:
    """Return the attributes of a span."""
    return {
        item.key: getattr(item.value, str(item.value.WhichOneof("value")))
        for item in span.attributes
    }
