"""SIGTERM: running calls are finished, and acknowledged changes are kept."""

import asyncio
import http
import json
import signal
import time
from collections import Counter
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from milepost.domain.operation import OperationId
from milepost.rpc.server import MAX_STREAM_DRAIN_S
from tests.contract.stored import Stored
from tests.e2e.client import FUNCTION, Client
from tests.e2e.refusals import refused
from tests.e2e.rpcs import CALL_SECONDS
from tests.e2e.service import Service
from tests.machine import slowdown
from tests.waiting import eventually, until

KILLED_BY_SIGTERM = 128 + signal.SIGTERM
SOON_S = 2.0


@pytest.fixture
def own_service(database_url, tmp_path):
    """A service that the test may stop, on each database."""
    service = Service(database_url, tmp_path)
    service.start()
    yield service
    service.kill()


@pytest.fixture
def embedded_service(sqlite_url, tmp_path):
    """A service that the test may stop, on its embedded store."""
    service = Service(sqlite_url, tmp_path)
    service.start()
    yield service
    service.kill()


def running(service):
    """Return the number of running calls."""
    return service.metric("milepost_rpcs_running")


def is_draining(service):
    """Return True if the service says that it drains."""
    status, body = service.probe("/readyz")
    return (
        status == http.HTTPStatus.SERVICE_UNAVAILABLE and "draining" in json.loads(body)["reason"]
    )


def test_running_call_is_finished(own_service):
    """A call running at SIGTERM is finished, new calls are refused, and the exit code is 0."""
    alice = own_service.client("alice")
    operation = alice.create_in("PROCESSING")
    stored = Stored(own_service.engine)
    with stored.held(OperationId(operation.id)):
        call = alice.future("UpdateProgress", operation_id=operation.id, progress=0.5)
        eventually(lambda: running(own_service) == 1, within=SOON_S, what="the call runs")
        own_service.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_draining(own_service), within=SOON_S, what="draining")
        for client in (alice, Client(own_service.channel, "unknown", frozenset(), "no key")):
            with refused(StatusCode.UNAVAILABLE, "DRAINING") as refusal:
                client.get(operation.id)
            assert refusal.retry_after == 1.0
        assert not call.done()
    assert call.result().operation.progress == 0.5
    assert own_service.end() == 0
    row = stored.operation(OperationId(operation.id))
    assert row is not None
    assert row["progress"] == 0.5
    assert [line["event"] for line in own_service.log_lines(level="info")][-3:] == [
        "draining",
        "operation changed",
        "stopped",
    ]


def test_second_signal_ends_at_once(embedded_service):
    """A second SIGTERM ends the process at once, even during calls."""
    alice = embedded_service.client("alice")
    operation = alice.create_in("PROCESSING")
    stored = Stored(embedded_service.engine)
    with stored.held(OperationId(operation.id)):
        call = alice.future("UpdateProgress", operation_id=operation.id, progress=0.5)
        eventually(lambda: running(embedded_service) == 1, within=SOON_S, what="the call runs")
        embedded_service.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_draining(embedded_service), within=SOON_S, what="draining")
        embedded_service.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert embedded_service.end() == KILLED_BY_SIGTERM
        assert time.monotonic() - start < 0.5 * slowdown()
        assert call.code() is StatusCode.UNAVAILABLE


async def test_drain_under_load(own_service):
    """Calls that arrive until the process ends are UNAVAILABLE; acknowledged changes are kept."""
    alice = own_service.client("alice")
    acknowledged: list[Any] = []
    codes: Counter[StatusCode] = Counter()

    async def work(channel):
        while own_service.process.poll() is None:
            created = alice.begin(channel, "CreateOperation", function=FUNCTION)
            codes[await created.code()] += 1
            if await created.code() is StatusCode.OK:
                acknowledged.append((await created).operation)

    channels = [own_service.aio_channel() for _ in range(4)]
    workers = [asyncio.create_task(work(channels[n % 4])) for n in range(40)]
    await until(lambda: len(acknowledged) >= 200)
    own_service.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*workers)
    await asyncio.gather(*(channel.close() for channel in channels))
    assert own_service.end() == 0
    assert set(codes) == {StatusCode.OK, StatusCode.UNAVAILABLE}, codes
    stored = Stored(own_service.engine)
    for operation in acknowledged:
        row = stored.operation(OperationId(operation.id))
        assert row is not None
        assert row["revision"] >= operation.revision


def test_watcher_that_does_not_read_delays_the_stop_by_two_seconds(own_service):
    """A watcher whose buffers are full cannot delay the stop by more than 2 s."""
    alice = own_service.client("alice")
    metadata = struct_pb2.Struct()
    metadata.update({"k": "x" * 60_000})
    operation = alice.create_in("PROCESSING", metadata=metadata)
    options = (("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(own_service.address, options=options) as channel:
        watch = alice.watch(channel, operation.id)
        next(watch)
        for step in range(1, 9):
            alice.transition("UpdateProgress", operation.id, progress=step / 10)
            time.sleep(0.05)  # an update that waited for the next one would be left out
        own_service.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert own_service.end() == 0
        assert (
            MAX_STREAM_DRAIN_S
            <= time.monotonic() - start
            < MAX_STREAM_DRAIN_S + SOON_S * slowdown()
        )
        with pytest.raises(grpc.RpcError) as caught:
            list(watch)
        assert caught.value.code() is StatusCode.UNAVAILABLE


def test_everything_is_there_after_a_restart(own_service):
    """After a restart all data is as before, and page tokens are still valid."""
    alice = own_service.client("alice")
    operations = [alice.create() for _ in range(3)]
    page = alice.call("ListOperations", page_size=2)
    own_service.stop()
    own_service.start()
    assert [alice.get(operation.id) for operation in operations] == operations
    rest = alice.call("ListOperations", page_size=2, page_token=page.next_page_token)
    assert [*page.operations, *rest.operations] == list(alice.call("ListOperations").operations)


def test_health_watchers_get_not_serving(embedded_service):
    """Watchers of the health service get NOT_SERVING and do not delay the stop."""
    stub = health_pb2_grpc.HealthStub(embedded_service.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    embedded_service.process.send_signal(signal.SIGTERM)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    start = time.monotonic()
    assert embedded_service.end() == 0
    assert time.monotonic() - start < SOON_S * slowdown()
