"""Callers of the API over HTTP, on each database."""

from collections.abc import Iterator

import pytest

from tests.e2e.client import Client
from tests.e2e.http.exchange import Http, http_of
from tests.e2e.service import Service


@pytest.fixture
def http_alice(any_service: Service, alice: Client) -> Iterator[Http]:
    """The caller of the fixture `alice`, over HTTP."""
    http = http_of(any_service, alice)
    yield http
    http.close()


@pytest.fixture
def http_worker(any_service: Service, worker: Client) -> Iterator[Http]:
    """The worker of the fixture `worker`, over HTTP."""
    http = http_of(any_service, worker)
    yield http
    http.close()


@pytest.fixture
def own_service(database_url: str, tmp_path) -> Iterator[Service]:
    """A service that the test may stop, on each database; keep-alives are frequent."""
    service = Service(database_url, tmp_path, keep_alive_seconds="0.2")
    service.start()
    yield service
    service.kill()
