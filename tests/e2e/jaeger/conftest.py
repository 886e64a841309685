"""Two replicas on PostgreSQL that send their traces to a real Jaeger."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from milepost.webhooks.master_keys import new_key
from tests.e2e.client import Client
from tests.e2e.service import Service, started
from tests.inbox import Inbox
from tests.jaeger.server import Jaeger
from tests.postgres import PostgresServer


@pytest.fixture(scope="module")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A Jaeger."""
    with Jaeger(tmp_path_factory.mktemp("jaeger")) as jaeger:
        yield jaeger


@pytest.fixture(scope="module")
def receiver() -> Iterator[Inbox]:
    """A receiver of webhooks."""
    with Inbox() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def replicas(
    jaeger: Jaeger,
    receiver: Inbox,
    postgres: PostgresServer,
    postgres_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[Service]]:
    """Two replicas that record what their callers sample, and nothing else."""
    name = f"milepost_jaeger_{uuid.uuid4().hex}"
    postgres.create_database(name, template=postgres_template)
    settings: dict[str, Any] = {
        "otlp_endpoint": jaeger.grpc_url,
        "trace_sample_ratio": "0",
        "webhook_keys": new_key(),
        "webhook_allow_http": "true",
        "webhook_allowed_networks": "127.0.0.1/32",
        "webhook_allowed_ports": str(receiver.port),
        "lease_sweep_seconds": "0.2",
    }
    folder = tmp_path_factory.mktemp("replicas")
    services = [Service(postgres.url(name), folder, **settings) for _ in range(2)]
    with started(services):
        yield services
    postgres.drop_database(name)


@pytest.fixture
def alice(replicas: list[Service]) -> Client:
    """A caller of the first replica."""
    return replicas[0].client("alice")


@pytest.fixture
def function() -> str:
    """A function that no other test works on."""
    return f"test.{uuid.uuid4().hex}"
