"""Receivers, and services that may send webhooks to them."""

import uuid
from typing import Any

import pytest

from milepost.webhooks.master_keys import new_key
from tests.e2e.service import Service
from tests.inbox import Inbox


@pytest.fixture(scope="module")
def receiver():
    """A receiver."""
    with Inbox() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def other():
    """Another receiver, which the limits count as another host."""
    with Inbox() as receiver:
        yield receiver


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def any_service(request, tmp_path_factory, receiver, other):
    """A service that can send webhooks to the receiver, with short retry delays."""
    folder = tmp_path_factory.mktemp("webhooks")
    settings: dict[str, Any] = {
        "webhook_allow_http": "true",
        "webhook_allowed_networks": "127.0.0.1/32",
        "webhook_allowed_ports": f"{receiver.port},{other.port}",
        "webhook_schedule_seconds": "0,0.1,0.1,0.2",
        "webhook_timeout_seconds": "1",
    }
    if request.param == "sqlite":
        with Service(f"sqlite:///{folder / 'milepost.db'}", folder, **settings) as service:
            yield service
        return
    postgres = request.getfixturevalue("postgres")
    name = f"milepost_webhooks_{uuid.uuid4().hex}"
    postgres.create_database(name, template=request.getfixturevalue("postgres_template"))
    url = postgres.url(name)
    with Service(url, folder, webhook_keys=new_key(), **settings) as service:
        yield service
    postgres.drop_database(name)


@pytest.fixture
def path():
    """Return a path of the receiver that no other test uses."""
    return f"/{uuid.uuid4().hex}"
