"""Databases and services of the fault tests alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.service import Service, started
from tests.redis import RedisServer

READS_PER_MINUTE: Final = 1_200
"""Read limit of services with shared limits: 20 a second, and the burst at the start."""


@pytest.fixture
def replicas(postgres_url: str, tmp_path: Path) -> Iterator[list[Service]]:
    """Two services on one PostgreSQL database."""
    with started([Service(postgres_url, tmp_path) for _ in range(2)]) as services:
        yield services


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test alone."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def limited_replicas(
    postgres_url: str, tmp_path: Path, redis: RedisServer
) -> Iterator[list[Service]]:
    """Two services on one PostgreSQL database, with the default quota, and limits in one Redis."""
    with started(
        [
            Service(
                postgres_url,
                tmp_path,
                limits_url=redis.url,
                active_operations_max="10",
                reads_per_minute=str(READS_PER_MINUTE),
            )
            for _ in range(2)
        ]
    ) as services:
        yield services
