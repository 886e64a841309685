"""A collector of traces over HTTP."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from tests.canaries import CANARIES
from tests.e2e.traces.collector import Collector

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

    def __enter__(self) -> Self:
        """Start."""
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop."""
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
