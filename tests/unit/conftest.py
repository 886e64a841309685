"""Fixtures for several files of unit tests: settings, a replica, and receivers of webhooks."""

import os
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.receivers import Behaviour, Receiver
from tests.unit.in_memory_service import Replica
from tests.unit.sender_fixtures import Start

# How long an example takes says nothing on a busy machine.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the environment."""
    for name in list(os.environ):
        if name.startswith("MILEPOST_"):
            monkeypatch.delenv(name)


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """A function that writes the settings file."""
    path = tmp_path / "settings.env"
    monkeypatch.setenv("MILEPOST_CONFIG_FILE", str(path))
    return path.write_text


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
