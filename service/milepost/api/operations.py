"""OperationService: the RPCs of callers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from milepost.api.convert import Fields
from milepost.api.create_fields import CreateFields
from milepost.api.deadlines import bounded
from milepost.api.messages import fill, fill_event, fill_result
from milepost.gen.milepost.v1 import operation_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from milepost.api.call import ApiCall
    from milepost.domain.limits import Limits
    from milepost.domain.operation import Operation
    from milepost.tracking.history import History
    from milepost.tracking.tracker import Tracker
    from milepost.tracking.watcher import Watcher


class OperationService:
    """Convert each request, await its use case, convert the result."""

    def __init__(
        self, tracker: Tracker, history: History, watcher: Watcher, limits: Limits
    ) -> None:
        """Serve `tracker`, `history` and `watcher`; check requests against `limits`."""
        self._tracker = tracker
        self._history = history
        self._watcher = watcher
        self._limits = limits
        self._items = _Items()

    async def CreateOperation(
        self, request: pb.CreateOperationRequest, call: ApiCall
    ) -> pb.CreateOperationResponse:
        """See the proto."""
        fields = CreateFields(request, self._limits)
        create_request = fields.create_request()
        fields.done()
        by = call.principal
        result = await self._tracker.create(by, create_request)
        response = fill_result(pb.CreateOperationResponse(), result, by.subject)
        response.joined = result.joined
        response.replayed = result.replayed and not result.joined
        return response

    async def GetOperation(
        self, request: pb.GetOperationRequest, call: ApiCall
    ) -> pb.GetOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id = fields.operation_id()
        fields.done()
        by = call.principal
        if seconds := call.preferred_wait:
            operation = await self._watcher.wait_for_change(
                by, operation_id, bounded(seconds, call)
            )
        else:
            operation = await self._tracker.get(by, operation_id)
        response = pb.GetOperationResponse()
        fill(response.operation, operation, by.subject)
        return response

    async def ListOperations(
        self, request: pb.ListOperationsRequest, call: ApiCall
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
        self, request: pb.WaitOperationRequest, call: ApiCall
    ) -> pb.WaitOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, timeout = fields.operation_id(), fields.timeout()
        fields.done()
        by = call.principal
        seconds = math.inf if timeout is None else timeout.total_seconds()
        operation = await self._watcher.wait(by, operation_id, bounded(seconds, call))
        response = pb.WaitOperationResponse()
        fill(response.operation, operation, by.subject)
        return response

    async def WatchOperation(
        self, request: pb.WatchOperationRequest, call: ApiCall
    ) -> AsyncIterator[pb.WatchOperationResponse]:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, after_revision = fields.operation_id(), fields.after_revision()
        fields.done()
        by = call.principal
        with self._watcher.watch(by, operation_id, after_revision) as changes:
            async for operation in changes:
                yield self._items.of(operation, by.subject)
                del operation  # a quiet stream keeps no operation in memory

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, call: ApiCall
    ) -> pb.CancelOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, preconditions = fields.operation_id(), fields.preconditions()
        reason, grace = fields.reason(), fields.duration("grace")
        fields.done()
        by = call.principal
        result = await self._tracker.cancel(
            by, operation_id, preconditions, reason=reason, grace=grace
        )
        return fill_result(pb.CancelOperationResponse(), result, by.subject)

    async def ListEvents(
        self, request: pb.ListEventsRequest, call: ApiCall
    ) -> pb.ListEventsResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, page_size = fields.operation_id(), fields.page_size()
        fields.done()
        events, next_page_token = await self._history.events(
            call.principal, operation_id, page_size=page_size, page_token=request.page_token
        )
        response = pb.ListEventsResponse(next_page_token=next_page_token)
        for event in events:
            fill_event(response.events.add(), event)
        return response

    async def DeleteOperation(
        self, request: pb.DeleteOperationRequest, call: ApiCall
    ) -> pb.DeleteOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, preconditions = fields.operation_id(), fields.preconditions()
        fields.done()
        await self._tracker.delete(call.principal, operation_id, preconditions)
        return pb.DeleteOperationResponse()


class _Items:
    """Items of watches. Consecutive watchers of one operation share the last item."""

    def __init__(self) -> None:
        self._last: tuple[Operation, str, pb.WatchOperationResponse] | None = None

    def of(self, operation: Operation | None, viewer: str) -> pb.WatchOperationResponse:
        if operation is None:
            return _KEEP_ALIVE
        if self._last is not None:
            last, last_viewer, response = self._last
            if last is operation and last_viewer == viewer:
                return response
        response = pb.WatchOperationResponse()
        fill(response.operation, operation, viewer)
        self._last = operation, viewer, response
        return response


_KEEP_ALIVE: Final = pb.WatchOperationResponse(keep_alive=pb.KeepAlive())
