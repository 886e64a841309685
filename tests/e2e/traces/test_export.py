"""The export of spans as the standard variables of OpenTelemetry say."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from tests.canaries import CANARIES
from tests.e2e.service import Service
from tests.e2e.traces.collector import Collector, attributes

KEY = CANARIES.fresh("header of a collector")


class HttpCollector:
    """A collector of OTLP over HTTP that asks for a credential."""

    def __init__(self) -> None:
        self.spans = Collector()
        store = self.spans.store

        class Handler(BaseHTTPRequestHandler):
            """Takes spans with the credential, and nothing else."""

            def do_POST(self) -> None:
                """Store the spans of a request."""
                body = self.rfile.read(int(self.headers["content-length"]))
                is_known = self.headers["x-key"] == KEY and self.path == "/v1/traces"
                if is_known:
                    store(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
                self.send_response(200 if is_known else 401)
                self.send_header("content-type", "application/x-protobuf")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Write nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[HttpCollector]:
    """A collector over HTTP."""
    collector = HttpCollector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


def test_spans_are_exported_over_http_by_the_standard_variables(collector, tmp_path, monkeypatch):
    """The standard variables choose protocol, address, headers, sampler and resource."""
    for name, value in {
        "EXPORTER_OTLP_ENDPOINT": collector.url,
        "EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "EXPORTER_OTLP_HEADERS": f"x-key={KEY}",
        "TRACES_SAMPLER": "always_on",
        "SERVICE_NAME": "shop-operations",
        "RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }.items():
        monkeypatch.setenv(f"OTEL_{name}", value)
    with Service(f"sqlite:///{tmp_path / 'milepost.db'}", tmp_path) as service:
        operation = service.client("alice").create()
        line = service.logged(operation_id=operation.id, transition="create")
        span = collector.spans.one(line["trace_id"], "operation create")
    assert attributes(span)["milepost.operation.id"] == operation.id
    (resource, *_) = collector.spans.resources
    assert "shop-operations" in resource
    assert "deployment.environment.name" in resource
