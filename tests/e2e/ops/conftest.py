"""A caller that runs commands, and a worker for its operations."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from milepost_client import SyncMilepost
from tests.e2e.commands import Done, milepost
from tests.e2e.service import Service


@pytest.fixture
def access(service: Service) -> dict[str, str]:
    """The variables of a caller of this test alone."""
    key = service.api_key(f"carol-{uuid.uuid4().hex}", roles=("CALLER",))
    return {"MILEPOST_ADDRESS": service.address, "MILEPOST_API_KEY": key}


@pytest.fixture
def caller(access: dict[str, str]) -> Callable[..., Done]:
    """A function that runs commands as this caller."""
    return lambda *arguments, **more: milepost(*arguments, **{**access, **more})


@pytest.fixture
def worker(service: Service) -> Iterator[SyncMilepost]:
    """A client that may work on every function."""
    key = service.api_key("wally", roles=("WORKER",), functions=("*",))
    with SyncMilepost(service.address, api_key=key) as client:
        yield client
