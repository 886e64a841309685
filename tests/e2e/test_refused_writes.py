"""A database that refuses writes: not ready within 2 s, its cause in the log once, reads served."""

import resource
from contextlib import contextmanager

import grpc
import psutil
import psycopg
import pytest
import sqlalchemy as sa
from google.protobuf import struct_pb2
from grpc import StatusCode

from tests.e2e.refusals import refused
from tests.e2e.service import Service
from tests.waiting import eventually

NOT_READY_WITHIN_S = 2.0
BACK_WITHIN_S = 5.0
MAX_WRITES = 100
MAX_FILE_BYTES = 300_000
METADATA = struct_pb2.Struct()
METADATA.update({"k": "x" * 10_000})
REFUSED_WRITES = "milepost_database_refused_writes_total"


@pytest.fixture
def own_service(database_url, tmp_path):
    """A service on each database, whose log and readiness belong to the test."""
    with Service(database_url, tmp_path) as service:
        yield service


@pytest.fixture
def admin_url(postgres):
    """The address of a database beside those of the services."""
    url = sa.make_url(postgres.url("postgres")).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


@contextmanager
def refusing_writes(service, admin_url):
    """Make the database refuse writes inside the block, and take them again."""
    if service.database_url.startswith("sqlite"):
        process = psutil.Process(service.process.pid)
        (_, hard) = before = process.rlimit(resource.RLIMIT_FSIZE)
        process.rlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, hard))
        yield
        process.rlimit(resource.RLIMIT_FSIZE, before)
        return
    name = str(sa.make_url(service.database_url).database)
    alter = f"ALTER DATABASE {name}"
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"{alter} SET default_transaction_read_only = on".encode())
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        yield
        admin.execute(f"{alter} RESET default_transaction_read_only".encode())


def takes_write(client):
    """Return True if a large create is accepted."""
    try:
        client.create(metadata=METADATA)
    except grpc.RpcError:
        return False
    return True


def test_refused_writes(own_service, admin_url):
    """Writes are UNAVAILABLE, reads served, and the cause is in probe, metric and log, once."""
    alice = own_service.client("alice")
    operation = alice.create()
    own_service.logged(event="readiness changed", ready=True)
    with refusing_writes(own_service, admin_url):
        for _ in range(MAX_WRITES):
            if not takes_write(alice):
                break
        eventually(own_service.problem, within=NOT_READY_WITHIN_S, what="not ready")
        for _ in range(MAX_WRITES // 10):
            with refused(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"):
                alice.create(metadata=METADATA)
            assert alice.get(operation.id) == operation
            assert own_service.problem()
        assert own_service.metric(REFUSED_WRITES) >= MAX_WRITES // 10
    eventually(own_service.is_ready, within=BACK_WITHIN_S, what="ready again")
    assert takes_write(alice)
    line = own_service.logged(event="readiness changed", ready=False)
    assert line["problem"]
    assert line["cause"]
    assert len(own_service.log_lines(event="readiness changed", ready=True)) == 2


def test_refusing_database_is_noticed_without_calls(postgres_url, admin_url, tmp_path):
    """An idle service on a server that becomes read-only is not ready, and names the remedy."""
    with Service(postgres_url, tmp_path) as service:
        with refusing_writes(service, admin_url):
            found = eventually(service.problem, within=NOT_READY_WITHIN_S, what="not ready")
            assert found.startswith("default_transaction_read_only is on")
        eventually(service.is_ready, within=BACK_WITHIN_S, what="ready again")
