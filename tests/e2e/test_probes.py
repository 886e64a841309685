"""The HTTP port, the schema, and the conditions for a service to be ready."""

import http.client
import json
import uuid

import grpc
import pytest
from google.protobuf import struct_pb2
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from milepost.storage import schema
from milepost.storage.engine import open_engine
from tests.e2e import fork_server
from tests.e2e.refusals import refused
from tests.e2e.rpcs import CALL_SECONDS, RPCS
from tests.e2e.service import START_SECONDS, STOP_SECONDS, Service
from tests.machine import environment
from tests.waiting import eventually

SOON_S = 5.0
MESSAGE_BYTES = 2 * 1024 * 1024


@pytest.fixture
def empty_database(postgres):
    """The URL of a PostgreSQL database without tables."""
    name = f"milepost_empty_{uuid.uuid4().hex}"
    postgres.create_database(name)
    yield postgres.url(name)
    postgres.drop_database(name)


def milepost(*arguments, **settings):
    """Run one command to its end."""
    return fork_server.run(*arguments, environment=environment(**settings), timeout=STOP_SECONDS)


def readiness(service):
    """Return the status of the readiness probe and its reason."""
    status, body = service.probe("/readyz")
    return status, json.loads(body).get("reason")


def health(service):
    """Return the health status of the whole server."""
    with grpc.insecure_channel(service.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS).status


def test_probes(any_service):
    """A running service is alive, ready and serving."""
    assert any_service.probe("/healthz") == (200, '{"status": "alive"}')
    assert any_service.probe("/readyz") == (200, '{"status": "ready"}')
    assert health(any_service) == health_pb2.HealthCheckResponse.SERVING
    assert any_service.probe("/nothing")[0] == http.HTTPStatus.NOT_FOUND


def test_metrics(any_service, alice):
    """The metrics count calls by method and code, transitions, and the time to the end."""

    def counts():
        return (
            any_service.metric(
                "milepost_rpc_duration_seconds_count",
                method="milepost.v1.WorkerService/CompleteOperation",
                code="OK",
            ),
            any_service.metric("milepost_transitions_total", transition="complete"),
            any_service.metric("milepost_operation_duration_seconds_count", status="COMPLETED"),
        )

    before = counts()
    alice.create_in("COMPLETED")
    after = tuple(count + 1 for count in before)
    eventually(lambda: counts() == after, within=SOON_S, what="counted")


def test_repetition_is_not_a_transition(any_service, alice):
    """A repeated call is counted as a call, and not as a transition."""
    operation = alice.create()
    before = any_service.metric("milepost_transitions_total", transition="start")
    for _ in range(2):
        alice.transition("StartOperation", operation.id, request_id="once")
    assert any_service.metric("milepost_transitions_total", transition="start") == before + 1


def test_large_messages(alice):
    """A request above 2 MiB is RESOURCE_EXHAUSTED by gRPC; one just below is read."""
    metadata = struct_pb2.Struct()
    metadata.update({"k": "x" * (MESSAGE_BYTES - 1_000)})
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        alice.create(metadata=metadata)
    assert set(refusal.violations) == {"metadata"}
    metadata.update({"k": "x" * MESSAGE_BYTES})
    with pytest.raises(grpc.RpcError) as caught:
        alice.create(metadata=metadata)
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    assert alice.create().owner == alice.subject


def test_compressed_requests_are_refused(alice):
    """A compressed request is UNIMPLEMENTED, because it may be a decompression bomb."""
    (create,) = (rpc for rpc in RPCS if rpc.method == "CreateOperation")
    request = create.request(function="f" * 200)
    with pytest.raises(grpc.RpcError) as caught:
        create.on(alice.channel)(
            request,
            metadata=alice.metadata,
            compression=grpc.Compression.Gzip,
            timeout=CALL_SECONDS,
        )
    assert caught.value.code() is StatusCode.UNIMPLEMENTED


def test_large_headers(alice):
    """Metadata above 64 KiB is RESOURCE_EXHAUSTED by gRPC; below it is read."""
    key = alice.metadata
    alice.metadata = (*key, ("x-large", "x" * 60_000))
    assert alice.create().owner == alice.subject
    alice.metadata = (*key, ("x-large", "x" * 67_000))
    with pytest.raises(grpc.RpcError) as caught:
        alice.create()
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED


def test_embedded_store_migrates_itself(tmp_path):
    """A service with a missing file in a missing folder creates both."""
    url = f"sqlite:///{tmp_path / 'a' / 'b' / 'new.db'}"
    with Service(url, tmp_path) as service:
        assert service.client("alice").create().revision == 1
    assert schema.current(open_engine(url)) == schema.latest()


def test_second_process_on_the_file_is_refused(service, tmp_path):
    """A second service on the same file ends at once with a message; the first one goes on.

    Nor does a symbolic link make another file of it.
    """
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(service.database_url.removeprefix("sqlite:///"))
    for url in (service.database_url, f"sqlite:///{link}"):
        second = Service(url, tmp_path)
        second.start(ready=False)
        assert second.end() == 1
        assert "another milepost serves" in second.log()
        assert "Traceback" not in second.log()
    assert service.is_ready()


def test_service_waits_for_its_schema(empty_database, tmp_path):
    """A service on an outdated schema is alive and not ready, and names the command to run.

    After `milepost migrate` it is ready without a restart.
    """
    service = Service(empty_database, tmp_path)
    service.start(ready=False)
    try:

        def reason():
            try:
                return readiness(service)[1]
            except OSError:
                return None

        eventually(
            lambda: "run milepost migrate" in (reason() or ""),
            within=START_SECONDS,
            what="asked to migrate",
        )
        assert readiness(service)[0] == http.HTTPStatus.SERVICE_UNAVAILABLE
        assert service.probe("/healthz")[0] == http.HTTPStatus.OK
        with pytest.raises(grpc.RpcError) as caught:
            health(service)
        assert caught.value.code() is StatusCode.UNAVAILABLE
        migrated = milepost("migrate", database_url=empty_database)
        assert migrated.returncode == 0, migrated.stderr
        service.wait_until_ready()
        assert service.client("alice").create().revision == 1
    finally:
        service.stop()


def test_service_waits_for_its_database(postgres, tmp_path):
    """A service waits for a missing database; SIGTERM then ends it with exit code 0."""
    service = Service(postgres.url("milepost_not_there_yet"), tmp_path)
    service.start(ready=False)
    try:
        eventually(
            lambda: service.log_lines(event="not ready"), within=START_SECONDS, what="waiting"
        )
        assert readiness(service)[0] == http.HTTPStatus.SERVICE_UNAVAILABLE
    finally:
        service.stop()


def test_api_of_a_starting_replica(postgres, tmp_path):
    """Before a replica serves, its API answers 503, not 404, and closes the connection."""
    service = Service(postgres.url("milepost_not_there_yet"), tmp_path)
    service.start(ready=False)
    try:
        eventually(
            lambda: service.log_lines(event="not ready"), within=START_SECONDS, what="waiting"
        )
        connection = http.client.HTTPConnection(service.http_address, timeout=SOON_S)
        connection.request("GET", "/v1/operations/op_000000000000000000000000")
        response = connection.getresponse()
        assert response.status == http.HTTPStatus.SERVICE_UNAVAILABLE
        assert response.getheader("Retry-After") == "1"
        assert response.getheader("Connection") == "close"
        assert json.load(response)["detail"] == "the replica is starting"
        connection.close()
    finally:
        service.stop()
