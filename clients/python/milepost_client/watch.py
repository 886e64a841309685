"""The watch of one operation: one sequence of changes over as many connections as it takes."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import grpc

from milepost_client.calls import Calls
from milepost_client.convert import from_operation
from milepost_client.disruption import is_disruption
from milepost_client.errors import LimitReached, MilepostError, Unavailable
from milepost_client.gen.milepost.v1 import operation_service_pb2 as pb
from milepost_client.operation import Operation
from milepost_client.pace import Backoff
from milepost_client.refusal import decoded, rebuild

log: Final = logging.getLogger("milepost_client.watch")

MAX_OUTAGE_S: Final = 300.0
"""How long a watch that has worked before tries to connect again."""
_REPORTED_FAILURE: Final = 2
"""Number, in a row, of the failure that is logged: a replica that drains causes one only."""


async def changes(
    calls: Calls, operation_id: str, after_revision: int
) -> AsyncGenerator[Operation, None]:
    """Yield the operation after each of its changes; see `Callers.watch`."""
    clock = asyncio.get_running_loop().time
    request = pb.WatchOperationRequest(operation_id=operation_id, after_revision=after_revision)
    backoff = Backoff()
    end = clock() + calls.deadline
    has_worked = False
    failures = 0  # since the last response
    while True:
        try:
            async with aclosing(_items(calls, request)) as items:
                async for item in items:
                    has_worked, failures = True, 0
                    if item.HasField("operation"):
                        request.after_revision = item.operation.revision
                        yield from_operation(item.operation)
                    # Not before the yield: the caller may spend any time on the change.
                    end = clock() + MAX_OUTAGE_S
                    backoff.reset()
        except (grpc.aio.AioRpcError, Unavailable) as failure:
            error = rebuild(failure)
            pause = backoff.pause_s(error)
            if not _is_temporary(error, has_worked=has_worked) or clock() + pause >= end:
                raise error from error.__cause__
            failures += 1
            if failures == _REPORTED_FAILURE:
                log.warning(
                    "the watch of %s is interrupted, and goes on later: %s", operation_id, error
                )
        else:
            return
        await asyncio.sleep(pause)


async def _items(
    calls: Calls, request: pb.WatchOperationRequest
) -> AsyncGenerator[pb.WatchOperationResponse, None]:
    """Yield what one call returns."""
    metadata = await calls.metadata(calls.deadline)
    call = calls.operations.WatchOperation(request, metadata=metadata, wait_for_ready=False)
    try:
        async for response in call:
            yield decoded(response)
    finally:
        call.cancel()


def _is_temporary(error: MilepostError, *, has_worked: bool) -> bool:
    """Return True if the watch is to connect again. A limit does not end one that has worked."""
    is_away = isinstance(error, Unavailable) or is_disruption(error, has_worked=has_worked)
    return is_away or (has_worked and isinstance(error, LimitReached))
