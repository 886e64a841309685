"""The health service of gRPC, as a servicer of this server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milepost.rpc.call import RpcCall

_SERVING = health_pb2.HealthCheckResponse.ServingStatus.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.ServingStatus.NOT_SERVING


class HealthService:
    """Answers the health checks of load balancers."""

    def __init__(self) -> None:
        """Know of no service yet."""
        self._servicer = health.aio.HealthServicer()

    async def Check(self, request: Any, call: RpcCall) -> Any:
        """Return the status of a service."""
        return await self._servicer.Check(request, call.context)

    async def Watch(self, request: Any, call: RpcCall) -> None:
        """Send the status of a service, and every change of it."""
        await self._servicer.Watch(request, call.context)

    async def List(self, _request: Any, call: RpcCall) -> None:
        """Refuse: balancers ask for services by name."""
        await call.context.abort(grpc.StatusCode.UNIMPLEMENTED, "not implemented")

    async def report(self, services: Iterable[str], *, ready: bool) -> None:
        """Set the status of `services`."""
        for service in services:
            await self._servicer.set(service, _SERVING if ready else _NOT_SERVING)

    async def close(self) -> None:
        """Say NOT_SERVING from now on."""
        await self._servicer.enter_graceful_shutdown()
