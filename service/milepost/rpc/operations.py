"""OperationService: for callers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from milepost.gen.milepost.v1 import operation_service_pb2 as pb
from milepost.rpc.convert import Fields
from milepost.rpc.messages import fill, moved
from milepost.rpc.prefer_header import preferred_wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from milepost.domain.limits import Limits
    from milepost.domain.operation import Operation
    from milepost.rpc.call import RpcCall
    from milepost.tracking.tracker import Tracker
    from milepost.tracking.watcher import Watcher

MARGIN_S: Final = 0.5
"""Of a call's deadline that is kept for the answer to travel: an answer in time is worth more than
a longer wait."""
MARGIN_SHARE: Final = 0.2
"""Of a deadline that is near, at most."""


class OperationService:
    """Each method: convert in, await, convert out."""

    def __init__(self, tracker: Tracker, watcher: Watcher, limits: Limits) -> None:
        """Serve `tracker` and `watcher`; check requests against `limits`."""
        self._tracker = tracker
        self._watching = watcher
        self._limits = limits
        self._items = _Items()

    async def CreateOperation(
        self, request: pb.CreateOperationRequest, call: RpcCall
    ) -> pb.CreateOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        create_request = fields.create_request()
        fields.done()
        by = call.principal
        outcome = await self._tracker.create(by, create_request)
        return moved(pb.CreateOperationResponse(), outcome, by.subject)

    async def GetOperation(
        self, request: pb.GetOperationRequest, call: RpcCall
    ) -> pb.GetOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id = fields.operation_id()
        fields.done()
        by = call.principal
        seconds = preferred_wait(call.context.invocation_metadata() or ())
        if seconds:
            operation = await self._watching.hold(by, operation_id, _in_time(seconds, call))
        else:
            operation = await self._tracker.get(by, operation_id)
        response = pb.GetOperationResponse()
        fill(response.operation, operation, by.subject)
        return response

    async def ListOperations(
        self, request: pb.ListOperationsRequest, call: RpcCall
    ) -> pb.ListOperationsResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        selection, page_size, full = fields.selection(), fields.page_size(), fields.full_view()
        fields.done()
        by = call.principal
        operations, next_page_token = await self._tracker.list(
            by, selection, page_size=page_size, page_token=request.page_token, full=full
        )
        response = pb.ListOperationsResponse(next_page_token=next_page_token)
        for operation in operations:
            fill(response.operations.add(), operation, by.subject)
        return response

    async def WaitOperation(
        self, request: pb.WaitOperationRequest, call: RpcCall
    ) -> pb.WaitOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, timeout = fields.operation_id(), fields.timeout()
        fields.done()
        by = call.principal
        seconds = math.inf if timeout is None else timeout.total_seconds()
        operation = await self._watching.wait(by, operation_id, _in_time(seconds, call))
        response = pb.WaitOperationResponse()
        fill(response.operation, operation, by.subject)
        return response

    async def WatchOperation(
        self, request: pb.WatchOperationRequest, call: RpcCall
    ) -> AsyncIterator[pb.WatchOperationResponse]:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, after_revision = fields.operation_id(), fields.after_revision()
        fields.done()
        by = call.principal
        with self._watching.watch(by, operation_id, after_revision) as subscriptions:
            async for operation in subscriptions:
                yield self._items.of(operation, by.subject)
                del operation  # while the stream is quiet nothing of it is kept

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, call: RpcCall
    ) -> pb.CancelOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, preconditions = fields.operation_id(), fields.preconditions()
        reason = fields.text("reason", self._limits.reason_length)
        fields.done()
        by = call.principal
        outcome = await self._tracker.cancel(by, operation_id, preconditions, reason=reason)
        return moved(pb.CancelOperationResponse(), outcome, by.subject)

    async def DeleteOperation(
        self, request: pb.DeleteOperationRequest, call: RpcCall
    ) -> pb.DeleteOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, preconditions = fields.operation_id(), fields.preconditions()
        fields.done()
        await self._tracker.delete(call.principal, operation_id, preconditions)
        return pb.DeleteOperationResponse()


def _in_time(seconds: float, call: RpcCall) -> float:
    """Return for how many seconds of those asked for the deadline of the call admits to wait."""
    left: float | None = call.context.time_remaining()
    if left is None:
        return seconds
    return min(seconds, left - min(MARGIN_S, left * MARGIN_SHARE))


class _Items:
    """What watchers are told. Many of one operation are told the same, one after the other."""

    def __init__(self) -> None:
        self._last: tuple[Operation, str, pb.WatchOperationResponse] | None = None

    def of(self, operation: Operation | None, viewer: str) -> pb.WatchOperationResponse:
        if operation is None:
            return _KEEP_ALIVE
        if self._last is not None:
            told, by, response = self._last
            if told is operation and by == viewer:
                return response
        response = pb.WatchOperationResponse()
        fill(response.operation, operation, viewer)
        self._last = operation, viewer, response
        return response


_KEEP_ALIVE: Final = pb.WatchOperationResponse(keep_alive=pb.KeepAlive())
