"""AdminService: for those who look after the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.domain.lifecycle import Move
from milepost.gen.milepost.v1 import admin_service_pb2 as pb
from milepost.gen.milepost.v1.admin_service_pb2_grpc import AdminServiceServicer

if TYPE_CHECKING:
    from milepost.rpc.interceptors.chain import Context
    from milepost.tracking.sweeping import Sweeping


class AdminService(AdminServiceServicer):
    """Each method: convert in, await, convert out."""

    def __init__(self, sweeping: Sweeping) -> None:
        """Serve `sweeping`."""
        self._sweeping = sweeping

    async def CleanupExpired(
        self, request: pb.CleanupExpiredRequest, _context: Context
    ) -> pb.CleanupExpiredResponse:
        """See the proto."""
        sweeping = self._sweeping
        swept = await (sweeping.preview() if request.dry_run else sweeping.clean_up())
        return pb.CleanupExpiredResponse(
            deleted_count=swept.moved[Move.FORGET],
            failed_count=swept.moved[Move.EXPIRE],
            more_remaining=swept.more,
        )
