"""Receivers of metrics over OTLP, and what they received, in the form of a page of metrics.

They take spans, too, and discard them.
"""

import asyncio
import itertools
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2 as pb,
)
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.collector import Collector
from tests.canaries import CANARIES

PROTOBUF = "application/x-protobuf"
Series = tuple[str, frozenset[tuple[str, str]]]
"""The name of a sample and its labels."""


class Receiver:
    """The exports that were received, with the headers of each."""

    protocol: str
    path = ""
    """Of the metrics, behind the URL of the collector."""
    url: str

    def __init__(self) -> None:
        self.exports: list[pb.ExportMetricsServiceRequest] = []
        self.headers: list[Mapping[str, str]] = []

    def take(self, export: pb.ExportMetricsServiceRequest, headers: Mapping[str, str]) -> None:
        """Keep an export."""
        CANARIES.saw("an export of metrics", export.SerializeToString())
        self.headers.append(headers)
        self.exports.append(export)


class GrpcReceiver(Receiver, metrics_service_pb2_grpc.MetricsServiceServicer):
    """A receiver of OTLP over gRPC."""

    protocol = "grpc"

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self._server = grpc.server(ThreadPoolExecutor(2), options=(("grpc.so_reuseport", 0),))
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(self, self._server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), self._server)
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"

    def __enter__(self) -> Self:
        """Start."""
        self._server.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop."""
        self._server.stop(0).wait()

    def Export(self, request, context):  # noqa: N802 - named by the proto
        """Keep an export."""
        self.take(request, dict(context.invocation_metadata()))
        return pb.ExportMetricsServiceResponse()


class HttpReceiver(Receiver):
    """A receiver of OTLP over HTTP, in a thread."""

    protocol = "http/protobuf"
    path = "/v1/metrics"

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(5)
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _start(self) -> int:
        app = web.Application()
        app.router.add_post(self.path, self._post)
        app.router.add_post("/v1/traces", self._discard)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def _discard(self, _request: web.Request) -> web.Response:
        return web.Response(content_type=PROTOBUF)

    async def _post(self, request: web.Request) -> web.Response:
        assert request.content_type == PROTOBUF
        self.take(pb.ExportMetricsServiceRequest.FromString(await request.read()), request.headers)
        answer = pb.ExportMetricsServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type=PROTOBUF)


def resource(export: pb.ExportMetricsServiceRequest) -> dict[str, str]:
    """Return the attributes of the one resource of an export."""
    (found,) = export.resource_metrics
    return {item.key: item.value.string_value for item in found.resource.attributes}


def metrics(export: pb.ExportMetricsServiceRequest) -> dict[str, Metric]:
    """Return the metrics of an export by name."""
    (found,) = export.resource_metrics
    (scope,) = found.scope_metrics
    return {metric.name: metric for metric in scope.metrics}


def values(export: pb.ExportMetricsServiceRequest) -> dict[Series, float]:
    """Return what a page of metrics would show instead of an export."""
    return {
        (name, frozenset(labels.items())): value
        for metric in metrics(export).values()
        for name, labels, value in _samples(metric)
    }


def values_of_page(page: str) -> dict[Series, float]:
    """Return the samples of a page of metrics."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def _samples(metric: Metric) -> Iterator[tuple[str, dict[str, str], float]]:
    kind = metric.WhichOneof("data")
    if kind == "histogram":
        yield from _buckets(metric)
        return
    suffix = "_total" if kind == "sum" else ""
    for point in getattr(metric, str(kind)).data_points:
        yield f"{metric.name}{suffix}", _labels(point), point.as_double


def _buckets(metric: Metric) -> Iterator[tuple[str, dict[str, str], float]]:
    for point in metric.histogram.data_points:
        labels = _labels(point)
        bounds = [*map(str, point.explicit_bounds), "+Inf"]
        counts = itertools.accumulate(point.bucket_counts)
        for bound, count in zip(bounds, counts, strict=True):
            yield f"{metric.name}_bucket", {**labels, "le": bound}, count
        yield f"{metric.name}_count", labels, point.count
        yield f"{metric.name}_sum", labels, point.sum


def _labels(point: Any) -> dict[str, str]:
    return {item.key: item.value.string_value for item in point.attributes}
