"""Watching an operation from change to change, over however many connections that takes."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import grpc

from milepost_client.calls import Calls
from milepost_client.convert import from_operation
from milepost_client.errors import LimitReached, MilepostError, Unavailable
from milepost_client.gen.milepost.v1 import operation_service_pb2 as pb
from milepost_client.operation import Operation
from milepost_client.pace import growing_pauses, seconds
from milepost_client.refusal import rebuild

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0
"""Bounds, in seconds, of what is added to the pause that the service asks for."""

PATIENCE: Final = 300.0
"""For how many seconds a watch that has worked before tries to come back."""


async def watching(
    calls: Calls, operation_id: str, after_revision: int
) -> AsyncGenerator[Operation, None]:
    """Yield the operation after each of its changes; see `Callers.watch`."""
    clock = asyncio.get_running_loop().time
    request = pb.WatchOperationRequest(operation_id=operation_id, after_revision=after_revision)
    pauses = growing_pauses(first=FIRST_PAUSE, most=LONGEST_PAUSE)
    end = clock() + calls.deadline
    has_worked = False
    while True:
        call = calls.operations.WatchOperation(
            request, metadata=calls.credential, wait_for_ready=False
        )
        try:
            async for item in call:
                has_worked = True
                if item.HasField("operation"):
                    request.after_revision = item.operation.revision
                    yield from_operation(item.operation)
                # Only now: the one who watches may take its time.
                end = clock() + PATIENCE
                pauses = growing_pauses(first=FIRST_PAUSE, most=LONGEST_PAUSE)
        except grpc.aio.AioRpcError as failure:
            error = rebuild(failure)
            pause = seconds(error.retry_after or 0.0) + next(pauses)
            if not _is_passing(error, has_worked=has_worked) or clock() + pause >= end:
                raise error from failure
        else:
            return
        finally:
            call.cancel()
        await asyncio.sleep(pause)


def _is_passing(error: MilepostError, *, has_worked: bool) -> bool:
    """Tell whether to come back. A limit is no reason to give up what was begun."""
    return isinstance(error, Unavailable) or (has_worked and isinstance(error, LimitReached))
