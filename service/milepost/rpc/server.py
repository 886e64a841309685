"""The gRPC server: its services, the interceptors around them, and its options."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from milepost import telemetry
from milepost.access.unknown_callers import UnknownCallers
from milepost.api.call_groups import CallGroups
from milepost.rpc.certificates import server_credentials
from milepost.rpc.handlers import add_service
from milepost.rpc.health import HealthService
from milepost.rpc.interceptors.access import (
    AdmissionInterceptor,
    AuditInterceptor,
    AuthInterceptor,
    RateLimitInterceptor,
)
from milepost.rpc.interceptors.chain import InterceptedServer
from milepost.rpc.interceptors.errors import Errors
from milepost.rpc.interceptors.observe import Observe
from milepost.rpc.options import server_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milepost.access.checks import AccessChecks
    from milepost.api.services import Service, UseCases
    from milepost.rpc.interceptors.chain import Interceptor
    from milepost.tls import TlsPair

MAX_STREAM_DRAIN_S: Final = 2.0
"""Time that callers that do not read their streams can delay the stop."""
SEND_TIME_S: Final = 0.25
"""Time for gRPC to hand the last responses to the operating system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """The settings of the gRPC port."""

    address: str
    connections: int
    """Connections at once. Further ones are closed when they open."""
    request_bytes: int
    reflection: bool
    batching: bool
    """True if concurrent unary calls go on in groups."""
    tls: TlsPair | None = None
    shares_port: bool = False
    """True if other processes of the same supervisor listen on the port, too."""


class RpcServer:
    """The services on one port. Create it on a running event loop."""

    def __init__(
        self,
        services: Iterable[Service],
        use_cases: UseCases,
        access: AccessChecks,
        wire: Wire,
        *,
        tracing: telemetry.Tracing,
    ) -> None:
        """Register every service inside the interceptors; nothing listens yet."""
        self._watcher = use_cases.watcher
        self._observe = Observe(tracing, wire.address)
        self._streams = use_cases.streams
        self._admission = access.admission
        interceptors: tuple[Interceptor, ...] = (
            self._observe,  # outermost: it must see refused calls too, with their final code
            # before all that runs once for a group, after observe, which counts the waiting too
            *((CallGroups(),) if wire.batching else ()),
            Errors(),  # before all that may refuse: turns whatever happens inside into a status
            AdmissionInterceptor(access.admission),  # before auth: a full replica looks up nothing
            AuthInterceptor(access.authenticator),  # before all that needs the principal
            AuditInterceptor(),  # after auth: refused calls have a line of the errors interceptor
            RateLimitInterceptor(access.rate_limits),  # after auth: limits are the principal's
        )
        self._server = grpc.aio.server(
            options=server_options(
                request_bytes=wire.request_bytes,
                connections=wire.connections,
                shares_port=wire.shares_port,
            )
        )
        self._health = HealthService()
        chained: Any = InterceptedServer(
            self._server, interceptors, UnknownCallers(access.authenticator.is_known)
        )
        for service in services:
            add_service(service, chained)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, chained)
        if wire.reflection:  # outside the interceptors: it shows the public .proto files only
            reflection.enable_server_reflection(
                [*chained.services, reflection.SERVICE_NAME], self._server
            )
        self._services = ("", *chained.services)
        if wire.tls is None:
            self.port = self._server.add_insecure_port(wire.address)
        else:
            self.port = self._server.add_secure_port(wire.address, server_credentials(wire.tls))

    async def start(self) -> None:
        """Listen. The health service says NOT_SERVING until `report` says otherwise."""
        await self.report(ready=False)
        await self._server.start()

    async def report(self, *, ready: bool) -> None:
        """Let the health service say whether to send calls here."""
        await self._health.report(self._services, ready=ready)

    async def drain(self, grace: float) -> None:
        """Refuse new calls, and let the running ones finish for `grace` seconds.

        The port stays open: to calls that arrive while gRPC stops it answers CANCELLED, which
        clients do not repeat. Calls get DRAINING until the process ends, and those that the end
        interrupts lose their connection, which clients report as UNAVAILABLE.
        """
        self._admission.close()
        self._watcher.close()  # ends waits and watches, which may take hours
        await self._health.close()
        self._streams.drain()
        ended = await asyncio.gather(
            self._admission.running.idle_within(grace),
            self._admission.streams.idle_within(min(grace, MAX_STREAM_DRAIN_S)),
        )
        if not all(ended):
            telemetry.log.warning("calls still running after the drain")
        await asyncio.sleep(SEND_TIME_S)
