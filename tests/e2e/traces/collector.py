"""A collector of traces, and calls under a trace of their own."""

import secrets

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.canaries import CANARIES
from tests.e2e.client import Client
from tests.waiting import eventually

ARRIVES_WITHIN_S = 10.0
CANARY = "canary51c2"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A collector that keeps every span it receives."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[str] = []

    def Export(self, request, _context):  # noqa: N802 - named by the proto
        """Store the spans of a request."""
        CANARIES.saw("a span", request.SerializeToString())
        for resource in request.resource_spans:
            self.resources.append(str(resource.resource))
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace."""
        return [span for span in self.spans if span.trace_id.hex() == trace_id]

    def one(self, trace_id: str) -> Span:
        """Wait for the only span of a trace and return it."""
        found: list[Span] = eventually(
            lambda: self.of(trace_id), within=ARRIVES_WITHIN_S, what=f"a span of {trace_id}"
        )
        (span,) = found
        return span


def under(client: Client, *, sampled: bool = True) -> tuple[str, str]:
    """Call the client under a new trace and return its trace id and span id."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    header = ("traceparent", f"00-{trace_id}-{span_id}-0{int(sampled)}")
    client.metadata = (("authorization", f"Bearer {client.key}"), header)
    return trace_id, span_id


def attributes(span: Span) -> dict[str, str]:
    """Return the attributes of a span."""
    return {item.key: item.value.string_value for item in span.attributes}
