"""google.longrunning.Operations: operations for the stock clients of that API.

Messages and services are those of `googleapis-common-protos`. AIP-151 says what they mean.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from google.longrunning import operations_proto_pb2 as pb
from google.protobuf import empty_pb2

from milepost.api.convert import Fields
from milepost.api.deadlines import bounded
from milepost.api.google_filter import selection_of
from milepost.api.google_messages import COLLECTION, fill_google
from milepost.domain.errors import IllegalTransition
from milepost.domain.operation import OperationId
from milepost.domain.transitions import TERMINAL, Preconditions

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from milepost.api.call import ApiCall
    from milepost.domain.limits import Limits
    from milepost.domain.operation import Operation
    from milepost.domain.selection import Selection
    from milepost.tracking.tracker import Tracker
    from milepost.tracking.watcher import Watcher


class GoogleOperations:
    """Convert each request, await its use case, convert the result."""

    def __init__(self, tracker: Tracker, watcher: Watcher, limits: Limits) -> None:
        """Serve `tracker` and `watcher`; check requests against `limits`."""
        self._tracker = tracker
        self._watcher = watcher
        self._limits = limits

    async def GetOperation(self, request: pb.GetOperationRequest, call: ApiCall) -> pb.Operation:
        """Return the operation; with the preference `wait`, once it has ended or at that time.

        GetOperation of milepost.v1 answers at every change. A stock client would poll again only
        seconds after it, and so learn late of the end.
        """
        operation_id = self._operation_id(request)
        if seconds := call.preferred_wait:
            operation = await self._watcher.wait(
                call.principal, operation_id, bounded(seconds, call)
            )
        else:
            operation = await self._tracker.get(call.principal, operation_id)
        return _message(operation)

    async def WaitOperation(self, request: pb.WaitOperationRequest, call: ApiCall) -> pb.Operation:
        """Return the operation once it has ended, or at the timeout as it stands."""
        fields = _NamedFields(request, self._limits)
        operation_id, timeout = fields.operation_id(), fields.timeout()
        fields.done()
        seconds = math.inf if timeout is None else timeout.total_seconds()
        operation = await self._watcher.wait(call.principal, operation_id, bounded(seconds, call))
        return _message(operation)

    async def ListOperations(
        self, request: pb.ListOperationsRequest, call: ApiCall
    ) -> pb.ListOperationsResponse:
        """List the operations of the caller, newest first.

        `return_partial_success` changes nothing, because every operation is always reachable.
        """
        fields = _NamedFields(request, self._limits)
        fields.parent()
        selection, page_size = fields.filter(), fields.page_size()
        fields.done()
        operations, next_page_token = await self._tracker.list(
            call.principal, selection, page_size=page_size, page_token=request.page_token, full=True
        )
        response = pb.ListOperationsResponse(next_page_token=next_page_token)
        for operation in operations:
            fill_google(response.operations.add(), operation)
        return response

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, call: ApiCall
    ) -> empty_pb2.Empty:
        """Cancel the operation; one that has ended stays as it is, and the answer is the same."""
        operation_id = self._operation_id(request)
        try:
            await self._tracker.cancel(call.principal, operation_id, Preconditions())
        except IllegalTransition as refusal:
            if refusal.status not in TERMINAL:
                raise
        return empty_pb2.Empty()

    async def DeleteOperation(
        self, request: pb.DeleteOperationRequest, call: ApiCall
    ) -> empty_pb2.Empty:
        """Delete an operation that has ended; an active one is refused."""
        operation_id = self._operation_id(request)
        await self._tracker.delete(call.principal, operation_id, Preconditions())
        return empty_pb2.Empty()

    def _operation_id(self, request: Message) -> OperationId:
        fields = _NamedFields(request, self._limits)
        operation_id = fields.operation_id()
        fields.done()
        return operation_id


class _NamedFields(Fields):
    """Reader of the fields of one request that names an operation, or their parent."""

    def operation_id(self) -> OperationId:
        """Return the id in the name of the operation."""
        parent, _, operation_id = self._request.name.partition("/")
        if parent != COLLECTION:
            self.refuse("name", f"must be {COLLECTION}/ and the id of an operation")
            return OperationId("")
        return self._id("name", operation_id)

    def parent(self) -> None:
        """Check the parent of the list: there is one collection."""
        if self._request.name not in ("", COLLECTION):
            self.refuse("name", f"must be {COLLECTION}")

    def filter(self) -> Selection:
        """Return the operations that the filter selects."""
        try:
            return selection_of(self._request.filter)
        except ValueError as problem:
            self.refuse("filter", str(problem))
            return selection_of("")


def _message(operation: Operation) -> pb.Operation:
    message = pb.Operation()
    fill_google(message, operation)
    return message
