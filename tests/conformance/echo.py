"""A gRPC server with the shortest answers for the loops of the testees, which counts updates.

It hands out operations to one worker, and acknowledges every report on a progress stream.

    python -m tests.conformance.echo

It writes its address, and then, for each line that it reads, the number of updates that came since
the line before. It ends with its input.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import grpc
import uvloop

from milepost.gen.milepost.v1 import (
    operation_pb2,
    operation_service_pb2,
    operation_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from tests.bench.messages import sample_operation


class Operations(operation_service_pb2_grpc.OperationServiceServicer):
    """The read of an operation."""

    def __init__(self) -> None:
        self._read = operation_service_pb2.GetOperationResponse(operation=sample_operation())

    async def GetOperation(  # noqa: N802 - named by the proto
        self, _request: operation_service_pb2.GetOperationRequest, _context: Any
    ) -> operation_service_pb2.GetOperationResponse:
        """Return an operation."""
        return self._read


class Work(worker_service_pb2_grpc.WorkerServiceServicer):
    """The calls of a worker."""

    def __init__(self) -> None:
        self._numbers = count()
        self.updates = 0

    async def ClaimOperations(  # noqa: N802 - named by the proto
        self, request: worker_service_pb2.ClaimOperationsRequest, _context: Any
    ) -> worker_service_pb2.ClaimOperationsResponse:
        """Hand out as many new operations as are wanted."""
        return worker_service_pb2.ClaimOperationsResponse(
            operations=[
                self._operation(f"op_{next(self._numbers):024x}", request.functions[0])
                for _ in range(request.max_operations or 1)
            ]
        )

    async def StreamProgress(  # noqa: N802 - named by the proto
        self, requests: AsyncIterator[worker_service_pb2.StreamProgressRequest], _context: Any
    ) -> AsyncIterator[worker_service_pb2.StreamProgressResponse]:
        """Count every update, and acknowledge it: those of one message in one message."""
        async for request in requests:
            if request.updates:
                found = [self._acknowledgement(each.operation_id) for each in request.updates]
                yield worker_service_pb2.StreamProgressResponse(acknowledgements=found)
            else:
                yield worker_service_pb2.StreamProgressResponse(
                    acknowledgement=self._acknowledgement(request.operation_id)
                )

    def _acknowledgement(self, operation_id: str) -> worker_service_pb2.Acknowledgement:
        self.updates += 1
        return worker_service_pb2.Acknowledgement(
            operation_id=operation_id, revision=self.updates + 2, attempt=1
        )

    async def UpdateProgress(  # noqa: N802 - named by the proto
        self, request: worker_service_pb2.UpdateProgressRequest, _context: Any
    ) -> worker_service_pb2.UpdateProgressResponse:
        """Return the operation."""
        return worker_service_pb2.UpdateProgressResponse(
            operation=self._operation(request.operation_id, "f")
        )

    async def CompleteOperation(  # noqa: N802 - named by the proto
        self, request: worker_service_pb2.CompleteOperationRequest, _context: Any
    ) -> worker_service_pb2.CompleteOperationResponse:
        """Return the operation."""
        return worker_service_pb2.CompleteOperationResponse(
            operation=self._operation(request.operation_id, "f")
        )

    async def ReleaseOperation(  # noqa: N802 - named by the proto
        self, request: worker_service_pb2.ReleaseOperationRequest, _context: Any
    ) -> worker_service_pb2.ReleaseOperationResponse:
        """Return the operation."""
        return worker_service_pb2.ReleaseOperationResponse(
            operation=self._operation(request.operation_id, "f")
        )

    @staticmethod
    def _operation(operation_id: str, function: str) -> operation_pb2.Operation:
        operation = operation_pb2.Operation(
            id=operation_id,
            function=function,
            status=operation_pb2.OPERATION_STATUS_PROCESSING,
            attempt=1,
            revision=2,
            max_attempts=3,
        )
        operation.start_time.GetCurrentTime()
        operation.lease_expire_time.FromNanoseconds(
            operation.start_time.ToNanoseconds() + 60 * 10**9
        )
        return operation


async def main() -> None:
    """Serve until the input ends."""
    server = grpc.aio.server()
    work = Work()
    operation_service_pb2_grpc.add_OperationServiceServicer_to_server(Operations(), server)
    worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(work, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _write(f"127.0.0.1:{port}")
    while await asyncio.to_thread(sys.stdin.readline):
        _write(str(work.updates))
        work.updates = 0
    await server.stop(None)


def _write(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
