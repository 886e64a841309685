"""A service of several processes, and what its tests look at."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import grpc
import psutil

from tests.e2e.client import Client
from tests.e2e.service import RECONNECT, START_SECONDS, Service
from tests.waiting import eventually

PROCESSES: Final = 2
MAX_CHANNELS: Final = 64
"""Connections after which every process has one: all but 1 of 2^63 times."""


def serving(service: Service) -> dict[int, psutil.Process]:
    """Return the processes that serve, by their pids."""
    assert service.process is not None
    return {each.pid: each for each in psutil.Process(service.process.pid).children()}


def send(service: Service, number: int) -> None:
    """Send a signal to the supervisor."""
    assert service.process is not None
    service.process.send_signal(number)


def ready(service: Service) -> float:
    """Return the number of processes that are ready."""
    return service.metric("milepost_process_ready")


def wait_until_all_ready(service: Service) -> None:
    """Wait until every process is ready."""
    eventually(
        lambda: ready(service) == PROCESSES, within=START_SECONDS, what="all processes ready"
    )


def ended(processes: dict[int, psutil.Process]) -> bool:
    """Return True if none of the processes runs any more."""
    return not any(
        each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes.values()
    )


@contextmanager
def channel(service: Service) -> Iterator[grpc.Channel]:
    """A channel with a connection of its own."""
    with closing(grpc.insecure_channel(service.address, options=RECONNECT)) as own:
        yield own


def create_on_new_connections(service: Service, client: Client, count: int) -> list[str]:
    """Create operations, each over a connection of its own, and return their ids."""
    ids = []
    for _ in range(count):
        with channel(service) as own:
            ids.append(Client(own, client.subject, client.roles, client.key).create().id)
    return ids


def is_free(address: str) -> bool:
    """Return True if the port can be bound."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_server((host, int(port))).close()
    except OSError:
        return False
    return True
