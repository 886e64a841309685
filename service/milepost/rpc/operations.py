"""OperationService: for callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.gen.milepost.v1 import operation_service_pb2 as pb
from milepost.gen.milepost.v1.operation_service_pb2_grpc import OperationServiceServicer
from milepost.rpc.caller import caller
from milepost.rpc.convert import Fields
from milepost.rpc.messages import fill, moved

if TYPE_CHECKING:
    from milepost.domain.limits import Limits
    from milepost.rpc.interceptors.chain import Context
    from milepost.tracking.tracker import Tracker


class OperationService(OperationServiceServicer):
    """Each method: convert in, await, convert out."""

    def __init__(self, tracker: Tracker, limits: Limits) -> None:
        """Serve `tracker`; check requests against `limits`."""
        self._tracker = tracker
        self._limits = limits

    async def CreateOperation(
        self, request: pb.CreateOperationRequest, _context: Context
    ) -> pb.CreateOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        proposal = fields.proposal()
        fields.done()
        by = caller()
        outcome = await self._tracker.create(by, proposal)
        return moved(pb.CreateOperationResponse(), outcome, by.subject)

    async def GetOperation(
        self, request: pb.GetOperationRequest, _context: Context
    ) -> pb.GetOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id = fields.operation_id()
        fields.done()
        by = caller()
        operation = await self._tracker.get(by, operation_id)
        response = pb.GetOperationResponse()
        fill(response.operation, operation, by.subject)
        return response

    async def ListOperations(
        self, request: pb.ListOperationsRequest, _context: Context
    ) -> pb.ListOperationsResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        selection, page_size, full = fields.selection(), fields.page_size(), fields.full_view()
        fields.done()
        by = caller()
        operations, next_page_token = await self._tracker.list(
            by, selection, page_size=page_size, page_token=request.page_token, full=full
        )
        response = pb.ListOperationsResponse(next_page_token=next_page_token)
        for operation in operations:
            fill(response.operations.add(), operation, by.subject)
        return response

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, _context: Context
    ) -> pb.CancelOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, guards = fields.operation_id(), fields.guards()
        reason = fields.text("reason", self._limits.reason_length)
        fields.done()
        by = caller()
        outcome = await self._tracker.cancel(by, operation_id, guards, reason=reason)
        return moved(pb.CancelOperationResponse(), outcome, by.subject)

    async def DeleteOperation(
        self, request: pb.DeleteOperationRequest, _context: Context
    ) -> pb.DeleteOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, guards = fields.operation_id(), fields.guards()
        fields.done()
        await self._tracker.delete(caller(), operation_id, guards)
        return pb.DeleteOperationResponse()
