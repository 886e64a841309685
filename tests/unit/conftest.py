"""Fixtures for several files of unit tests: a replica, and receivers of webhooks."""

import ssl
from collections.abc import AsyncIterator

import pytest

from tests.receivers import Behaviour, Receiver
from tests.unit.in_memory_service import Replica
from tests.unit.sender_fixtures import Start


@pytest.fixture
async def replica(sqlite_url: str) -> AsyncIterator[Replica]:
    """A replica."""
    replica = Replica(sqlite_url)
    yield replica
    await replica.batchers.close()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts receivers that end with the test."""
    running: list[Receiver] = []

    async def start(
        behaviour: Behaviour, tls: ssl.SSLContext | None = None, *, address: str = "127.0.0.1"
    ) -> Receiver:
        running.append(await Receiver(behaviour, address=address).start(tls))
        return running[-1]

    yield start
    for receiver in running:
        await receiver.stop()
