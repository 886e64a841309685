"""A service for the tools that read its description."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.webhooks.master_keys import new_key
from tests.e2e.service import Service


@pytest.fixture
def described(sqlite_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service whose waits and quiet streams are short."""
    with Service(
        sqlite_url,
        tmp_path,
        webhook_keys=new_key(),
        wait_seconds_max="0.1",
        claim_wait_seconds="0.1",
        keep_alive_seconds="0.1",
    ) as service:
        yield service
