"""More connections than select(2) can count: an outage of the database ends as with a few."""

import resource
import socket
from contextlib import ExitStack

import grpc
import psutil
import pytest
import sqlalchemy as sa

from milepost.storage.notifications import APPLICATION
from milepost.storage.schema import upgrade
from tests.e2e.service import Service, started
from tests.postgres import PostgresCluster
from tests.waiting import eventually

OPEN_FILES = 8_000
BACK_WITHIN_S = 10.0
_LISTENERS = sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")


@pytest.fixture
def many_open_files():
    """Allow this process to open one socket for each connection of the services."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(service, count, stack):
    """Open `count` idle connections to the port of the calls."""
    process = psutil.Process(service.process.pid)
    (_, hard) = process.rlimit(resource.RLIMIT_NOFILE)
    process.rlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
    host, _, port = service.address.rpartition(":")
    for _ in range(count):
        stack.enter_context(socket.create_connection((host, int(port))))
    eventually(lambda: process.num_fds() > count, within=BACK_WITHIN_S, what="connected")


def works(client):
    """Return True if the service writes and reads."""
    try:
        client.get(client.create().id)
    except grpc.RpcError:
        return False
    return True


def listeners(service):
    """Return the number of listening sessions; PostgreSQL counts them once a transaction."""
    with service.engine.connect() as connection:
        return connection.execute(_LISTENERS, {"name": APPLICATION}).scalar_one()


@pytest.mark.parametrize("count", [1_100, pytest.param(3_000, marks=pytest.mark.faults)])
@pytest.mark.usefixtures("many_open_files")
def test_restart_of_the_database(tmp_path, count):
    """With many connections, calls and notifications go on after a restart of PostgreSQL."""
    with PostgresCluster(durable=False) as cluster, ExitStack() as stack:
        cluster.create_database("many")
        url = cluster.url("many")
        upgrade(url)
        services = stack.enter_context(started([Service(url, tmp_path) for _ in range(2)]))
        clients = [service.client("alice") for service in services]
        for service in services:
            connect(service, count, stack)
        cluster.stop()
        cluster.start()
        for service, client in zip(services, clients, strict=True):
            eventually(service.is_ready, within=BACK_WITHIN_S, what="ready again")
            eventually(lambda: works(client), within=BACK_WITHIN_S, what="serving")  # noqa: B023
        eventually(
            lambda: listeners(services[0]) == len(services),
            within=BACK_WITHIN_S,
            what="notifications are exchanged",
        )
        for service in services:
            assert service.log_lines(event="notifications interrupted", error="ValueError") == []
