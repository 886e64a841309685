"""Outages of the database: refused within a second, healthy within five, without a restart."""

import json
import sqlite3
import time
from contextlib import closing, contextmanager
from datetime import timedelta

import grpc
import psycopg
import pytest
import sqlalchemy as sa
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from milepost.storage.failures import NO_ANSWER
from milepost.storage.schema import upgrade
from tests.e2e.refusals import refused
from tests.e2e.rpcs import ABOUT_ONE, CALL_SECONDS, RPCS
from tests.e2e.service import PROMPT, Service
from tests.machine import slowdown
from tests.postgres import PostgresCluster
from tests.waiting import eventually

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING
REFUSED_WITHIN_S = 1.0
NOT_READY_WITHIN_S = 2.0
BACK_WITHIN_S = 5.0
WIRE_S = 0.25
"""Time of a call without the wait of the service."""


@pytest.fixture(scope="module")
def cluster():
    """A PostgreSQL of these tests alone, which they can stop."""
    with PostgresCluster(durable=False) as cluster:
        cluster.create_database("outage")
        upgrade(cluster.url("outage"))
        yield cluster


@pytest.fixture(scope="module")
def own_service(cluster, tmp_path_factory):
    """The service on it, which is one process through all outages."""
    folder = tmp_path_factory.mktemp("outage")
    with Service(cluster.url("outage"), folder, database_timeout_seconds=PROMPT) as service:
        yield service


@contextmanager
def killed(cluster):
    """Kill the database server inside the block."""
    cluster.kill()
    try:
        yield
    finally:
        cluster.start()


def frozen(cluster):
    """Freeze the server inside the block: it accepts connections and answers none of them."""
    return cluster.frozen()


def health(service):
    """Return the health status of the whole server."""
    stub = health_pb2_grpc.HealthStub(service.channel)
    return stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS).status


@contextmanager
def refused_in_time(reason="STORE_UNAVAILABLE", code=StatusCode.UNAVAILABLE):
    """Assert that the call inside is refused within a second."""
    start = time.monotonic()
    with refused(code, reason) as refusal:
        yield refusal
    assert time.monotonic() - start < REFUSED_WITHIN_S + WIRE_S * slowdown()


def recover(service, client):
    """Wait until the service is ready, reads and writes; fail if it takes too long."""
    start = time.monotonic()
    eventually(service.is_ready, within=BACK_WITHIN_S, what="ready again")
    left = BACK_WITHIN_S - (time.monotonic() - start)
    eventually(lambda: can_write(client), within=left, what="writes again")
    eventually(lambda: health(service) == SERVING, within=left, what="healthy again")


ABOUT_WORK = tuple(
    rpc
    for rpc in RPCS
    if rpc.name.startswith(("milepost.v1.OperationService/", "milepost.v1.WorkerService/"))
    and rpc.shape != "stream_stream"  # which answers with an item and stays open
)


CAUSES = {
    killed: ("nothing listens at the address of the database", NO_ANSWER),
    frozen: (NO_ANSWER,),
}


@pytest.mark.parametrize("outage", [killed, frozen])
def test_outage_and_return(cluster, own_service, outage):
    """During an outage every call is UNAVAILABLE with RetryInfo within a second.

    The service is not ready within 2 s, and ready again within 5 s of the return of its database.
    A failure of the store is never a false success.
    """
    both = own_service.client("both", roles=("CALLER", "WORKER"), functions=("*",))
    operation = both.create_in("PROCESSING")
    with outage(cluster):
        start = time.monotonic()
        calls = {rpc.method: both.ask(rpc, operation.id) for rpc in ABOUT_WORK}
        for call in calls.values():
            with refused(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE") as refusal:
                call.result()
            assert refusal.retry_after == 1.0
            assert "postgres" not in str(refusal.status).lower()
        assert time.monotonic() - start < REFUSED_WITHIN_S + WIRE_S * slowdown()
        left = NOT_READY_WITHIN_S - (time.monotonic() - start)
        eventually(own_service.problem, within=left, what="not ready")
        assert own_service.problem() in CAUSES[outage]
        left = NOT_READY_WITHIN_S - (time.monotonic() - start)
        eventually(lambda: health(own_service) == NOT_SERVING, within=left, what="not healthy")
        assert own_service.probe("/healthz")[0] == 200
        assert own_service.probe("/metrics")[0] == 200
    recover(own_service, both)
    assert both.get(operation.id).id == operation.id


@pytest.mark.parametrize("outage", [killed, frozen])
def test_malformed_requests_need_no_database(cluster, own_service, outage):
    """A malformed id is refused at every RPC without a query of the database."""
    both = own_service.client("both", roles=("CALLER", "WORKER"), functions=("*",))
    both.create()  # the key is cached from here on
    with outage(cluster):
        for rpc in ABOUT_ONE:
            with refused_in_time("INVALID_REQUEST", StatusCode.INVALID_ARGUMENT):
                both.send(rpc, rpc.about("invalid-id"))
        with refused_in_time("UNAUTHENTICATED", StatusCode.UNAUTHENTICATED):
            ABOUT_ONE[0].send(own_service.channel, ABOUT_ONE[0].about("invalid-id"), ())
    recover(own_service, both)


@pytest.mark.parametrize("outage", [killed, frozen])
def test_unknown_key_is_not_judged_without_the_database(cluster, own_service, outage):
    """A key that cannot be looked up is UNAVAILABLE, neither accepted nor refused for good."""
    bob = own_service.client("bob")
    with outage(cluster), refused_in_time():
        bob.create()
    recover(own_service, bob)


@contextmanager
def without_standby(cluster):
    """Let each commit wait for a standby that does not exist, inside the block."""
    with admin_of(cluster) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        admin.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            admin.execute("SELECT pg_reload_conf()")


def admin_of(cluster):
    """Return a connection to the database of the service, which commits each statement."""
    url = sa.make_url(cluster.url("outage")).set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


def test_commits_that_hang(cluster, own_service):
    """A server that reads, and finishes no commit, is not ready; reads are served."""
    alice = own_service.client("alice")
    operation = alice.create()
    with without_standby(cluster):
        eventually(lambda: not can_write(alice), within=BACK_WITHIN_S, what="commits hang")
        eventually(own_service.problem, within=NOT_READY_WITHIN_S, what="not ready")
        assert own_service.problem() == NO_ANSWER
        assert alice.get(operation.id) == operation
    recover(own_service, alice)


def test_calls_that_fail_beside_others(cluster, own_service):
    """A cause that concerns some calls is on the page and in the log, while others are served."""
    alice = own_service.client("alice")
    own_service.log()
    with admin_of(cluster) as admin, admin.transaction():
        admin.execute("LOCK TABLE operations IN SHARE MODE")  # as CREATE INDEX does
        with refused_in_time():
            alice.create()
        eventually(lambda: "database" in degraded(own_service), within=2, what="degraded")
        assert own_service.is_ready()
    eventually(lambda: can_write(alice), within=BACK_WITHIN_S, what="writes again")
    assert "some calls fail" in own_service.log()
    recover(own_service, alice)


def degraded(service):
    """Return the parts that do not work although the service is ready."""
    code, page = service.probe("/readyz")
    return json.loads(page).get("degraded", {}) if code == 200 else {}


def test_locked_file(sqlite_url, tmp_path):
    """While another process locks the embedded store, reads succeed and writes are UNAVAILABLE."""
    path = str(sa.make_url(sqlite_url).database)
    with (
        Service(sqlite_url, tmp_path, database_timeout_seconds=PROMPT) as service,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        alice = service.client("alice")
        operation = alice.create()
        other.execute("BEGIN IMMEDIATE")
        with refused_in_time() as refusal:
            alice.create()
        assert refusal.retry_after == timedelta(seconds=1).total_seconds()
        assert alice.get(operation.id) == operation
        other.execute("ROLLBACK")
        recover(service, alice)


def can_write(client):
    """Return True if a create is accepted."""
    try:
        client.create()
    except grpc.RpcError:
        return False
    return True
