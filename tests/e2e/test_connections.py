"""Many connections and calls of strangers do not keep the service from its callers."""

import contextlib
import http
import resource
import socket
import subprocess
import sys
import time

import psutil
import pytest

from milepost.access.unknown_callers import MAX_PER_SECOND
from milepost.rpc.options import MAX_PENDING_CALLS
from milepost.rpc.unread_calls import MAX_UNREAD_CALLS
from milepost.web.connections import MAX_CONNECTIONS
from tests.e2e.service import Service
from tests.machine import environment
from tests.raw_connection import RawConnection
from tests.waiting import eventually

GET = "milepost.v1.OperationService/GetOperation"
OPEN_FILES = 1_000
FEW_FILES = 400
STREAMS = 1_000
SILENT = 1_100


@pytest.fixture
def own_service(database_url, tmp_path):
    """A service of the test alone, on each database."""
    with Service(database_url, tmp_path) as service:
        yield service


@contextlib.contextmanager
def soft_limit(files: int):
    """Give processes that start now a soft limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def silent_connections(address: str, count: int):
    """Open connections that send nothing."""
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
        yield


def open_files(service: Service) -> int:
    """Return the number of files and connections that the service has open."""
    assert service.process is not None
    return int(psutil.Process(service.process.pid).num_fds())


def test_soft_limit_of_open_files_is_raised(sqlite_url, tmp_path):
    """The service raises its soft limit of open files, and says so in its log."""
    service = Service(sqlite_url, tmp_path, forked=False)
    with soft_limit(OPEN_FILES):
        service.start()
    try:
        assert service.process is not None
        soft, hard = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
        assert soft == min(hard, 65_536) > OPEN_FILES
        assert service.logged(event="serving")["open_files"] == soft
    finally:
        service.stop()


def test_silent_http_connections_leave_room(own_service):
    """With 1,100 silent connections on the HTTP port, probes and calls are answered."""
    alice = own_service.client("alice")
    before = open_files(own_service)
    with silent_connections(own_service.http_address, SILENT):
        assert own_service.probe("/readyz")[0] == http.HTTPStatus.OK
        assert alice.create().revision == 1
        eventually(
            lambda: open_files(own_service) <= before + MAX_CONNECTIONS + 10, within=5, what="few"
        )


def test_grpc_connections_leave_room(sqlite_url, tmp_path):
    """With more silent connections on the gRPC port than open files, probes and calls go on."""
    service = Service(sqlite_url, tmp_path)
    service.process = subprocess.Popen(
        ["/bin/sh", "-c", f'ulimit -n {FEW_FILES}; exec "$0" -m milepost serve', sys.executable],
        env=environment(
            database_url=sqlite_url, listen=service.address, http_listen=service.http_address
        ),
        stderr=subprocess.DEVNULL,
    )
    service.wait_until_ready()
    alice = service.client("alice")
    assert alice.create().revision == 1
    with silent_connections(service.address, FEW_FILES + 100):
        assert service.probe("/readyz")[0] == http.HTTPStatus.OK
        assert alice.create().revision == 1
        assert open_files(service) < FEW_FILES
    service.stop()


def test_calls_without_their_requests_are_bounded(own_service):
    """Of 3,000 calls that never send their request at most 2,000 stay; others are served."""
    alice = own_service.client("alice")
    operation = alice.create()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(RawConnection(own_service.address))
            for _ in range(STREAMS):
                connection.open_call(GET, *alice.metadata)
        eventually(
            lambda: (
                own_service.metric("milepost_limited_total", limit="unread_calls")
                == 3 * STREAMS - MAX_UNREAD_CALLS
            ),
            within=20,
            what="refused",
        )
        assert alice.get(operation.id) == operation


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer none"),)])
def test_calls_of_strangers_are_bounded(own_service, metadata):
    """Of 3,000 calls with no good credential few are looked at; known callers are served."""
    alice = own_service.client("alice")
    operation, begun, sent = alice.create(), time.monotonic(), 0

    def turned_away() -> int:
        return int(own_service.metric("milepost_limited_total", limit="unknown_callers"))

    with contextlib.ExitStack() as stack:
        while sent < MAX_PENDING_CALLS and not turned_away():
            for _ in range(3):
                connection = stack.enter_context(RawConnection(own_service.address))
                for _ in range(STREAMS):
                    connection.open_call(GET, *metadata, body=b"")
            sent += 3 * STREAMS
            assert alice.get(operation.id) == operation
    assert alice.get(operation.id) == operation
    # A slow machine may look at each call, because there are never so many in one second.
    looked_at = len(own_service.log_lines(event="call refused"))
    assert looked_at <= (time.monotonic() - begun + 2) * MAX_PER_SECOND
