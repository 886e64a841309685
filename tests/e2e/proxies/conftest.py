"""Two replicas on one PostgreSQL database, and the proxies in front of them."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.service import Service, started
from tests.postgres import PostgresServer
from tests.proxies import KINDS, Configuration, Proxy, is_installed, require

NOT_READY_S = "2"
"""Time in which the health checks of HAProxy notice a drain."""


@pytest.fixture(scope="package")
def replicas(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, postgres_template: str
) -> Iterator[list[Service]]:
    """Two services on one database."""
    name = f"milepost_proxies_{uuid.uuid4().hex}"
    postgres.create_database(name, template=postgres_template)
    folder = tmp_path_factory.mktemp("replicas")
    services = [
        Service(postgres.url(name), folder, not_ready_seconds=NOT_READY_S) for _ in range(2)
    ]
    with started(services):
        yield services
    postgres.drop_database(name)


@pytest.fixture(scope="package")
def proxies(
    tmp_path_factory: pytest.TempPathFactory, replicas: list[Service]
) -> Iterator[dict[str, Proxy]]:
    """Every proxy that is installed, by its name."""
    folder = tmp_path_factory.mktemp("proxies")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Configuration(name, replicas, folder).running())
            for name in KINDS
            if is_installed(name)
        }


@pytest.fixture(params=KINDS)
def proxy(request: pytest.FixtureRequest, proxies: dict[str, Proxy]) -> Proxy:
    """Each proxy in turn; the test is skipped where it is not installed."""
    name: str = request.param
    require(name)
    return proxies[name]


@pytest.fixture
def function() -> str:
    """A function that no other test works on."""
    return f"test.{uuid.uuid4().hex}"
