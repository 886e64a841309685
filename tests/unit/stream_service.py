"""A real service on loopback whose progress streams answer as a test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from google.protobuf import timestamp_pb2

from milepost_client import Milepost
from milepost_client.convert import from_operation
from milepost_client.gen.milepost.v1 import worker_service_pb2 as pb
from milepost_client.gen.milepost.v1.worker_service_pb2_grpc import (
    WorkerServiceServicer,
    add_WorkerServiceServicer_to_server,
)
from milepost_client.held_operation import HeldOperation
from milepost_client.operation import Operation
from tests.unit.client_script import API_KEY, Refusal, operation

BEGIN_S = 1_000_000


@dataclass
class StreamService(WorkerServiceServicer):
    """Acknowledges reports, and ends a stream where the test says so."""

    refuse: Callable[[int, int], Refusal | None] = lambda _stream, _number: None
    """Says how to end a stream, by its number, instead of taking a report, by its number in it."""
    streams: list[list[tuple[float, str]]] = field(default_factory=list)
    """The time and the operation of every report, stream by stream."""
    requests: list[int] = field(default_factory=list)
    """The number of updates of every message."""
    reply: Callable[[pb.ProgressUpdate], pb.StreamProgressResponse] = lambda update: (
        pb.StreamProgressResponse(
            acknowledgements=[pb.Acknowledgement(operation_id=update.operation_id, revision=3)]
        )
    )
    """Returns the answer to a report."""
    before_reply: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
    """Returns when the answer may be sent."""
    updates: list[pb.ProgressUpdate] = field(default_factory=list)
    opened: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    async def StreamProgress(self, request_iterator, context):  # noqa: N802 - named by the proto
        """Take reports until the script ends the stream."""
        clock = asyncio.get_running_loop().time
        taken: list[tuple[float, str]] = []
        self.streams.append(taken)
        self.opened.append(clock())
        stream = len(self.streams) - 1
        async for request in request_iterator:
            self.requests.append(len(request.updates))
            for update in request.updates:
                refusal = self.refuse(stream, len(taken))
                if refusal is not None:
                    self.ended.append(clock())
                    status = (("grpc-status-details-bin", refusal.details()),)
                    await context.abort(refusal.code, "as scripted", trailing_metadata=status)
                taken.append((clock(), update.operation_id))
                self.updates.append(update)
                await self.before_reply()
                yield self.reply(update)


@asynccontextmanager
async def streaming(service: StreamService) -> AsyncIterator[Milepost]:
    """A client of the service."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    add_WorkerServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Milepost(f"127.0.0.1:{port}", api_key=API_KEY) as milepost:
            yield milepost
    finally:
        await server.stop(None)


def claimed(name: str, *, lease_s: float, **fields: int) -> Operation:
    """An operation that was claimed now, with a lease of so many seconds."""
    begin, end = timestamp_pb2.Timestamp(seconds=BEGIN_S), timestamp_pb2.Timestamp()
    end.FromMilliseconds(int((BEGIN_S + lease_s) * 1_000))
    known = {"attempt": 1, "start_time": begin, "lease_expire_time": end}
    return from_operation(operation("PROCESSING", id=name, **(known | fields)))


class Outbox:
    """A stream that sends nothing."""

    def enqueue(self, held: HeldOperation) -> None:
        """Send nothing."""

    def drop(self, held: HeldOperation) -> None:
        """Drop nothing."""
