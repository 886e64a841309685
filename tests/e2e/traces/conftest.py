"""A service that sends every trace to a collector."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from tests.e2e.client import Client
from tests.e2e.service import Service
from tests.e2e.traces.collector import Collector
from tests.e2e.traces.http_collector import HttpCollector
from tests.inbox import Inbox


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector and the port that it listens on."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(0)


@pytest.fixture
def http_collector() -> Iterator[HttpCollector]:
    """A collector over HTTP."""
    with HttpCollector() as collector:
        yield collector


@pytest.fixture(scope="module")
def receiver() -> Iterator[Inbox]:
    """A receiver of webhooks."""
    with Inbox() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def traced(collector, receiver, tmp_path_factory) -> Iterator[Service]:
    """A service that sends every trace to the collector without delay."""
    folder = tmp_path_factory.mktemp("traced")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        url = f"sqlite:///{folder / 'milepost.db'}"
        service = Service(
            url,
            folder,
            otlp_endpoint=collector[1],
            trace_sample_ratio="1",
            webhook_allow_http="true",
            webhook_allowed_networks="127.0.0.1/32",
            webhook_allowed_ports=str(receiver.port),
            webhook_schedule_seconds="0.1,0.1",
        )
        with service:
            yield service


@pytest.fixture
def spans(collector: tuple[Collector, str]) -> Collector:
    """The content of the collector."""
    return collector[0]


@pytest.fixture
def alice(traced: Service) -> Client:
    """A caller of the traced service."""
    return traced.client("alice")
