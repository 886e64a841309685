"""StreamProgress over the wire: acknowledgements, error items and interruptions."""

import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf import duration_pb2
from grpc import StatusCode

from milepost.domain.operation import OperationId
from milepost.gen.milepost.v1 import operation_pb2
from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from tests import factories
from tests.e2e.client import Client
from tests.e2e.refusals import Refusal, refused
from tests.e2e.rpcs import BROKEN, RPCS
from tests.e2e.service import Service
from tests.machine import slowdown
from tests.waiting import until

SOON_S = 20.0
SILENCE_S = 1.2
"""Silence of a worker that has reported before."""
AT_ONCE_S = 0.5
HOUR = duration_pb2.Duration(seconds=3600)
UNKNOWN = "op_000000000000000000000000"
(STREAM,) = (rpc for rpc in RPCS if rpc.method == "StreamProgress")


class Stream:
    """One progress stream of a client."""

    def __init__(self, client: Client, channel: grpc.aio.Channel) -> None:
        self.call = STREAM.on(channel)(metadata=client.metadata)

    async def send(self, operation_id: str, **fields: Any) -> None:
        """Send one update."""
        await self.call.write(pb.StreamProgressRequest(operation_id=operation_id, **fields))

    async def item(self, patience: float = SOON_S) -> Any:
        """Return the message of the next item."""
        response = await asyncio.wait_for(self.call.read(), patience)
        assert response is not grpc.aio.EOF, "the stream has ended"
        return getattr(response, response.WhichOneof("item"))

    async def ask(self, operation_id: str, **fields: Any) -> Any:
        """Send one update and return the next item."""
        await self.send(operation_id, **fields)
        return await self.item()

    async def rest(self) -> list[Any]:
        """End the updates and return all items up to the end of the stream."""
        await self.call.done_writing()
        items = []
        while (response := await asyncio.wait_for(self.call.read(), SOON_S)) is not grpc.aio.EOF:
            items.append(getattr(response, response.WhichOneof("item")))
        return items

    async def interruption(self, patience: float = SOON_S) -> Any:
        """Return the next item that is not an acknowledgement."""
        while isinstance(item := await self.item(patience), pb.Acknowledgement):
            pass
        return item


@asynccontextmanager
async def streaming(service: Service, client: Client) -> AsyncIterator[Stream]:
    """Open a progress stream over a connection of its own."""
    async with service.aio_channel() as channel:
        stream = Stream(client, channel)
        yield stream
        stream.call.cancel()


async def test_first_update_is_acknowledged_at_once(any_service, alice, worker):
    """The first update is committed at once; its acknowledgement names revision and attempt."""
    operation = alice.create()
    async with streaming(any_service, worker) as stream:
        acknowledgement = await stream.ask(operation.id, progress=0.25, message="a quarter")
    stored = alice.get(operation.id)
    assert acknowledgement == pb.Acknowledgement(
        operation_id=operation.id, revision=stored.revision, attempt=1
    )
    assert (stored.status, stored.progress) == (pb_status("PROCESSING"), 0.25)
    assert stored.progress_message == "a quarter"
    assert stored.worker == worker.subject


def pb_status(name: str) -> int:
    """Return the number of a status."""
    return operation_pb2.OperationStatus.Value(f"OPERATION_STATUS_{name}")


async def test_fast_updates_are_coalesced(any_service, alice):
    """Of updates faster than one per second the newest is kept, and committed at half-close."""
    operation = alice.create()
    async with streaming(any_service, alice) as stream:
        await stream.ask(operation.id, progress=0.0)
        start = time.monotonic()
        for number in range(1, 101):
            await stream.send(operation.id, progress=number / 100, message=f"step {number}")
        items = await stream.rest()
        took = time.monotonic() - start
        assert await stream.call.code() is StatusCode.OK
    stored = alice.get(operation.id)
    assert (stored.progress, stored.progress_message) == (1.0, "step 100")
    assert items[-1].revision == stored.revision
    assert len(items) <= 2 + took
    assert stored.revision <= 4 + took


def refusal_of(client: Client, update: dict[str, Any]) -> Refusal:
    """Return how the unary call refuses an update."""
    with refused(None) as refusal:
        client.call("UpdateProgress", **update)
    return refusal


async def test_bad_updates_do_not_end_the_stream(any_service, alice):
    """A bad update is answered by the error of the unary call; the other operations go on."""
    operation, done = alice.create(), alice.create_in("COMPLETED")
    theirs = any_service.client("bob").create()
    async with streaming(any_service, alice) as stream:
        first = await stream.ask(operation.id, progress=0.5)
        updates: tuple[dict[str, Any], ...] = (
            {"operation_id": "nonsense", "progress": 0.1},
            {"operation_id": "x" * 10_000},
            {"operation_id": operation.id, "progress": float("nan"), "message": "x" * 1_001},
            {"operation_id": operation.id, "attempt": 0},
            {"operation_id": operation.id, "progress": 0.2},
            {"operation_id": done.id, "progress": 0.2},
            {"operation_id": UNKNOWN},
            {"operation_id": theirs.id, "progress": 0.9},
        )
        for bad in updates:
            item = await stream.ask(**bad)
            assert isinstance(item, pb.UpdateError), item
            assert item.operation_id == bad["operation_id"][:255]
            expected = await asyncio.to_thread(refusal_of, alice, bad)
            assert item.reason == expected.reason
            assert item.message == expected.message
            assert dict(item.metadata) == expected.facts
        await stream.send(operation.id, progress=0.6)
        (last,) = await stream.rest()
        assert last.revision == first.revision + 1
        assert await stream.call.code() is StatusCode.OK
    assert alice.get(operation.id).progress == 0.6
    assert any_service.worker().get(theirs.id).revision == 1


async def test_cancel_is_pushed_at_once(any_service, alice, worker):
    """A cancel on the same replica interrupts a silent worker within 50 ms."""
    took = []
    async with streaming(any_service, worker) as stream, any_service.aio_channel() as channel:
        for _ in range(7):
            operation = alice.create()
            await stream.ask(operation.id, progress=0.5)
            response, start = (
                await alice.begin(channel, "CancelOperation", operation_id=operation.id),
                time.monotonic(),
            )
            interruption = await stream.interruption()
            took.append(time.monotonic() - start)
            assert interruption == pb.Interruption(
                operation_id=operation.id,
                kind=pb.INTERRUPTION_KIND_CANCELLED,
                revision=response.operation.revision,
            )
    assert statistics.median(took) < 0.05 * slowdown(), took


async def test_first_update_of_a_cancelled_operation_is_interrupted(any_service, alice, worker):
    """A worker that returns to a cancelled operation is interrupted."""
    operation = alice.create_in("CANCELLED")
    async with streaming(any_service, worker) as stream:
        for _ in range(2):
            item = await stream.ask(operation.id, progress=0.5)
            assert item == pb.Interruption(
                operation_id=operation.id,
                kind=pb.INTERRUPTION_KIND_CANCELLED,
                revision=operation.revision,
            )


def received(service: Service) -> float:
    """Return the number of updates that have arrived."""
    return service.metric("milepost_progress_updates_total", fate="received")


async def until_received(service: Service, count: float) -> None:
    """Wait until this number of updates has arrived."""
    await until(lambda: received(service) >= count)


async def test_pending_progress_is_committed_before_the_end(any_service, alice, worker):
    """A terminal transition finds the newest progress of the stream committed."""
    kept = []
    async with streaming(any_service, worker) as stream, any_service.aio_channel() as channel:
        for method in ("FailOperation", "CancelOperation"):
            operation = alice.create()
            await stream.ask(operation.id, progress=0.1)
            before = received(any_service)
            await stream.send(operation.id, progress=0.7, message="nearly")
            await until_received(any_service, before + 1)
            fields = {"errors": [BROKEN]} if method == "FailOperation" else {}
            response = await alice.begin(channel, method, operation_id=operation.id, **fields)
            kept.append((response.operation.progress, response.operation.progress_message))
            assert (await stream.item()).revision == response.operation.revision - 1
            if method == "CancelOperation":
                assert (await stream.item()).kind == pb.INTERRUPTION_KIND_CANCELLED
    assert kept == [(0.7, "nearly")] * 2


async def test_stale_attempt_is_interrupted(any_service, alice):
    """An update of another attempt is answered by LEASE_LOST."""
    operation = alice.create_in("PROCESSING")
    async with streaming(any_service, alice) as stream:
        item = await stream.ask(operation.id, attempt=operation.attempt + 1, progress=0.5)
        assert (item.operation_id, item.kind) == (
            operation.id,
            pb.INTERRUPTION_KIND_LEASE_LOST,
        )


async def test_stream_needs_a_worker(any_service, admin):
    """The stream of an admin, or without a valid credential, is refused as a whole."""
    async with any_service.aio_channel() as channel:
        for client, code in (
            (admin, StatusCode.PERMISSION_DENIED),
            (Client(any_service.channel, "x", frozenset(), "no"), StatusCode.UNAUTHENTICATED),
        ):
            stream = Stream(client, channel)
            with refused(code):
                await stream.item()  # a client that still writes sometimes reports INTERNAL


async def test_lost_lease_is_pushed(any_service, alice):
    """A silent worker whose lease expired gets LEASE_LOST after the sweep."""
    function = f"test.{uuid.uuid4().hex}"
    worker = any_service.worker()
    operation = alice.create(function=function)
    (claimed,) = worker.call(
        "ClaimOperations", functions=[function], lease=duration_pb2.Duration(seconds=5)
    ).operations
    async with streaming(any_service, worker) as stream:
        acknowledgement = await stream.ask(operation.id, attempt=1, progress=0.5)
        held = acknowledgement.lease_expire_time.ToNanoseconds()
        assert held >= claimed.lease_expire_time.ToNanoseconds()
        interruption = await asyncio.wait_for(stream.interruption(patience=20.0), 25.0)
        assert (interruption.operation_id, interruption.kind) == (
            operation.id,
            pb.INTERRUPTION_KIND_LEASE_LOST,
        )
        late = await stream.ask(operation.id, attempt=1, progress=0.6)
        assert late.kind == pb.INTERRUPTION_KIND_LEASE_LOST
    assert alice.get(operation.id).status == pb_status("PENDING")


def overdue(service: Service, operation: operation_pb2.Operation) -> None:
    """Move the expire_time of the operation into the past."""
    factories.age(service.engine, OperationId(operation.id), timedelta(hours=2))


async def test_expiry_is_pushed(any_service, alice, worker):
    """A silent worker gets EXPIRED as soon as its operation has expired."""
    operation = alice.create(ttl=HOUR)
    async with streaming(any_service, worker) as stream:
        await stream.ask(operation.id, progress=0.5)
        await asyncio.sleep(SILENCE_S)
        overdue(any_service, operation)
        interruption = await stream.interruption()
        received_at = time.time()
        stored = alice.get(operation.id)
        assert interruption == pb.Interruption(
            operation_id=operation.id,
            kind=pb.INTERRUPTION_KIND_EXPIRED,
            revision=stored.revision,
        )
        assert [error.code for error in stored.errors] == ["EXPIRED"]
        assert received_at - stored.complete_time.ToNanoseconds() / 1e9 < AT_ONCE_S * slowdown()
        late = await stream.ask(operation.id, progress=0.6)
        assert late.kind == pb.INTERRUPTION_KIND_EXPIRED


async def test_expiry_interrupts_a_worker_that_returns(any_service, alice, worker):
    """A worker whose operation expired while it was away gets EXPIRED at its first update."""
    operation = alice.create(ttl=HOUR)
    async with streaming(any_service, worker) as stream:
        acknowledged = await stream.ask(operation.id, progress=0.5)
    overdue(any_service, operation)
    await until(lambda: alice.get(operation.id).status == pb_status("FAILED"))
    async with streaming(any_service, worker) as stream:
        item = await stream.ask(operation.id, attempt=acknowledged.attempt, progress=0.6)
        assert item == pb.Interruption(
            operation_id=operation.id,
            kind=pb.INTERRUPTION_KIND_EXPIRED,
            revision=acknowledged.revision + 1,
        )
