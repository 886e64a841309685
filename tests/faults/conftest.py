"""Databases and services of the fault tests: nobody else uses them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.service import Service


@pytest.fixture
def replicas(postgres_url: str, tmp_path: Path) -> Iterator[list[Service]]:
    """Two services on one PostgreSQL database."""
    services = [Service(postgres_url, tmp_path) for _ in range(2)]
    with ExitStack() as stack:
        for service in services:
            service.start(ready=False)
            stack.callback(service.stop)
        for service in services:
            service.wait_until_ready()
        yield services
