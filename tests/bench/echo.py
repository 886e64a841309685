"""A gRPC echo server: the minimum cost of every call.

It runs on the same library and event loop as the service, takes the same requests and answers with
an operation of the same size.

    python -m tests.bench.echo PORT
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from milepost.gen.milepost.v1 import (
    operation_service_pb2,
    operation_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from tests.bench.messages import sample_acknowledgement, sample_operation

STREAM_INTERVAL = 1.0
"""Seconds between two acknowledgements of one operation on a stream: the default of the service."""


class UpdateEvent:
    """An event that wakes all current watchers."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Return at the next notification."""
        await self._event.wait()

    def notify(self) -> None:
        """Wake all watchers that wait now."""
        self._event.set()
        self._event = asyncio.Event()


class EchoOperations(operation_service_pb2_grpc.OperationServiceServicer):
    """The calls of callers."""

    def __init__(self, updates: UpdateEvent) -> None:
        operation = sample_operation()
        self._updates = updates
        self._created = operation_service_pb2.CreateOperationResponse(operation=operation)
        self._read = operation_service_pb2.GetOperationResponse(operation=operation)

    async def CreateOperation(  # noqa: N802 - named by the proto
        self, _request: operation_service_pb2.CreateOperationRequest, _context: Any
    ) -> operation_service_pb2.CreateOperationResponse:
        """Answer."""
        return self._created

    async def GetOperation(  # noqa: N802 - named by the proto
        self, _request: operation_service_pb2.GetOperationRequest, _context: Any
    ) -> operation_service_pb2.GetOperationResponse:
        """Answer."""
        return self._read

    async def WatchOperation(  # noqa: N802 - named by the proto
        self, _request: operation_service_pb2.WatchOperationRequest, _context: Any
    ) -> AsyncIterator[operation_service_pb2.WatchOperationResponse]:
        """Send the same operation once at the beginning and then at every update."""
        while True:
            yield operation_service_pb2.WatchOperationResponse(operation=self._read.operation)
            await self._updates.wait()


class EchoWork(worker_service_pb2_grpc.WorkerServiceServicer):
    """The calls of workers."""

    def __init__(self, updates: UpdateEvent) -> None:
        operation = sample_operation()
        self._updates = updates
        self._started = worker_service_pb2.StartOperationResponse(operation=operation)
        self._updated = worker_service_pb2.UpdateProgressResponse(operation=operation)
        self._completed = worker_service_pb2.CompleteOperationResponse(operation=operation)

    async def StartOperation(  # noqa: N802 - named by the proto
        self, _request: worker_service_pb2.StartOperationRequest, _context: Any
    ) -> worker_service_pb2.StartOperationResponse:
        """Answer."""
        return self._started

    async def UpdateProgress(  # noqa: N802 - named by the proto
        self, _request: worker_service_pb2.UpdateProgressRequest, _context: Any
    ) -> worker_service_pb2.UpdateProgressResponse:
        """Answer."""
        self._updates.notify()
        return self._updated

    async def StreamProgress(  # type: ignore[override] # noqa: N802 - named by the proto
        self, requests: AsyncIterator[worker_service_pb2.StreamProgressRequest], context: Any
    ) -> None:
        """Acknowledge each operation as often as the service does, and keep nothing."""
        clock = asyncio.get_running_loop().time
        due: dict[str, float] = {}
        async for request in requests:
            identity, now = request.operation_id, clock()
            if now >= due.get(identity, 0.0):
                due[identity] = now + STREAM_INTERVAL
                await context.write(sample_acknowledgement(identity))
        for identity in due:
            await context.write(sample_acknowledgement(identity))

    async def CompleteOperation(  # noqa: N802 - named by the proto
        self, _request: worker_service_pb2.CompleteOperationRequest, _context: Any
    ) -> worker_service_pb2.CompleteOperationResponse:
        """Answer."""
        return self._completed


async def serve(port: int) -> None:
    """Answer calls until the process is ended."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            # Above its default limits gRPC answers calls with CANCELLED, silently.
            ("grpc.server.max_pending_requests", 100_000),
            ("grpc.server.max_pending_requests_hard_limit", 100_000),
        ]
    )
    updates = UpdateEvent()
    operations, work = EchoOperations(updates), EchoWork(updates)
    operation_service_pb2_grpc.add_OperationServiceServicer_to_server(operations, server)
    worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(work, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Read the arguments, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
