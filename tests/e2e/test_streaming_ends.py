"""Ends of progress streams, and their memory when a worker misbehaves."""

import asyncio
import signal
import time
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from tests.e2e.refusals import refused
from tests.e2e.service import Service
from tests.e2e.test_streaming import STREAM, Stream, streaming
from tests.machine import slowdown
from tests.waiting import eventually, until

SOON_S = 5.0
FLOOD = 5_000
STILL_S = 0.5
UNREAD = 256
MAX_GROWTH_KIB = 24 * 1024


@pytest.fixture
def own_service(database_url, tmp_path):
    """A service on each database that the test may stop."""
    with Service(database_url, tmp_path) as service:
        yield service


def memory_kib(service: Service) -> int:
    """Return the resident memory of the service."""
    assert service.process is not None
    status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


async def test_drain_commits_what_is_pending(own_service):
    """A stopping replica commits pending updates, and ends the streams with DRAINING."""
    alice = own_service.client("alice")
    operation = alice.create()
    async with streaming(own_service, alice) as stream:
        await stream.ask(operation.id, progress=0.1)
        await stream.send(operation.id, progress=0.7)
        await until(
            lambda: own_service.metric("milepost_progress_updates_total", fate="received") == 2
        )
        start = time.monotonic()
        own_service.process.send_signal(signal.SIGTERM)
        acknowledgement = await stream.item()
        with refused(StatusCode.UNAVAILABLE, "DRAINING"):
            await stream.item()
        code = await asyncio.to_thread(own_service.end)
        assert code == 0
        assert time.monotonic() - start < SOON_S * slowdown()
    own_service.start()
    stored = alice.get(operation.id)
    assert (stored.progress, stored.revision) == (0.7, acknowledgement.revision)


async def test_drain_does_not_wait_for_a_worker_that_does_not_read(own_service):
    """A worker that floods and does not read costs no memory and does not delay the drain."""
    alice = own_service.client("alice")
    ids = [alice.create().id for _ in range(10)]
    async with own_service.aio_channel() as channel:
        stream = Stream(alice, channel)
        await stream.ask(ids[0])
        before = memory_kib(own_service)
        flooding = asyncio.create_task(flood(stream, ids))
        await until_reading_stops(own_service)
        assert not flooding.done()
        assert memory_kib(own_service) - before < MAX_GROWTH_KIB
        start = time.monotonic()
        own_service.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(own_service.end) == 0
        assert time.monotonic() - start < SOON_S * 2 * slowdown()
        flooding.cancel()
        await asyncio.wait({flooding})


async def flood(stream: Stream, ids: list[str]) -> None:
    """Send bad and good updates without end and without reading."""
    while True:
        for operation_id in ids:
            # Each refusal is an item of its own: the buffers of the connection fill soon.
            await stream.send("x" * 255, message="y" * 2_000)
            await stream.send(operation_id, progress=0.5, message="z" * 1_000)


async def until_reading_stops(service: Service) -> None:
    """Wait until the service takes no more updates."""
    taken, since = 0.0, time.monotonic()
    while time.monotonic() - since < STILL_S:
        if (now := flooded(service)) != taken or now < UNREAD:
            taken, since = now, time.monotonic()
        await asyncio.sleep(0.02)


def flooded(service: Service) -> float:
    """Return the number of updates that the service has taken or refused."""
    return service.metric("milepost_progress_updates_total")


async def test_flood_is_coalesced(service):
    """A worker that floods and reads costs no memory."""
    alice = service.client("alice")
    operation = alice.create()
    async with streaming(service, alice) as stream:
        await stream.ask(operation.id)
        before = memory_kib(service)
        for number in range(FLOOD):
            await stream.send(operation.id, progress=number / FLOOD, message="m" * 1_000)
        await stream.rest()
    assert memory_kib(service) - before < MAX_GROWTH_KIB


async def test_end_of_the_worker_leaves_nothing(any_service, alice):
    """A stream that its worker cuts off is removed from the service at once."""
    operation = alice.create()
    before = any_service.metric("milepost_progress_streams")
    async with streaming(any_service, alice) as stream:
        await stream.ask(operation.id)
        assert any_service.metric("milepost_progress_streams") == before + 1
    eventually(
        lambda: any_service.metric("milepost_progress_streams") == before,
        within=SOON_S,
        what="the stream is gone",
    )


async def test_reconnected_worker_continues(own_service):
    """A worker that a kill cut off continues, and a cancel of that time interrupts it."""
    alice = own_service.client("alice")
    goes_on, cancelled = alice.create(), alice.create()
    async with streaming(own_service, alice) as stream:
        acknowledged = [await stream.ask(o.id, progress=0.4) for o in (goes_on, cancelled)]
        own_service.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.item()
    own_service.start()
    assert [alice.get(o.id).revision for o in (goes_on, cancelled)] == [
        a.revision for a in acknowledged
    ]
    alice.call("CancelOperation", operation_id=cancelled.id)
    async with streaming(own_service, alice) as stream:
        assert (await stream.ask(cancelled.id, progress=0.5)).kind == (
            pb.INTERRUPTION_KIND_CANCELLED
        )
        assert (await stream.ask(goes_on.id, progress=0.5)).revision == acknowledged[0].revision + 1


async def test_undecodable_message_is_answered(any_service, alice):
    """An undecodable message is answered by an error item; the stream goes on."""
    operation = alice.create()
    async with any_service.aio_channel() as channel:
        open_raw = channel.stream_stream(
            f"/{STREAM.name}", response_deserializer=STREAM.response.FromString
        )
        call = open_raw(metadata=alice.metadata)
        await call.write(b"\xff\xff\xff")
        answer = await asyncio.wait_for(call.read(), SOON_S)
        assert answer.error.reason == "INVALID_REQUEST"
        await call.write(pb.StreamProgressRequest(operation_id=operation.id).SerializeToString())
        answer = await asyncio.wait_for(call.read(), SOON_S)
        assert answer.acknowledgement.revision == 2
        call.cancel()
