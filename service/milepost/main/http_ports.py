"""The HTTP ports: probes from the start, and the API once the replica serves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from aiohttp import web

from milepost.config import split_address
from milepost.main.open_files import max_http_connections
from milepost.web.api_app import api_app
from milepost.web.http_api import HttpApi
from milepost.web.http_port import HttpPort
from milepost.web.probes import add_probes
from milepost.web.start_refusals import starting_app
from milepost.web.tls import server_context

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milepost.access.checks import AccessChecks
    from milepost.api.services import Service
    from milepost.config import Settings
    from milepost.main.readiness import Readiness
    from milepost.telemetry import Tracing
    from milepost.tls import TlsPair


class HttpPorts:
    """One port for both, or one for the API and another one for the probes.

    Until the replica serves, the port of the API answers probes, if it has them, and refuses other
    requests with 503. One of several processes shares the port of the API; the probes are those of
    its supervisor.
    """

    def __init__(
        self,
        settings: Settings,
        readiness: Readiness,
        tls: TlsPair | None,
        *,
        has_supervisor: bool = False,
    ) -> None:
        """Describe the ports; nothing listens yet."""
        self._settings = settings
        self._tls = tls if settings.http_tls else None
        self._has_supervisor = has_supervisor
        self._readiness = readiness
        self._stack = contextlib.AsyncExitStack()
        self._probes: HttpPort | None = None

    async def __aenter__(self) -> Self:
        """Answer the probes."""
        settings = self._settings
        address = settings.probes_listen or settings.http_listen
        if address and not self._has_supervisor:
            has_api = settings.serves_http_api and not settings.probes_listen
            app = starting_app() if has_api else web.Application()
            add_probes(app, self._readiness.state)
            self._probes = await self._listen(address, app)
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Listen no more."""
        await self._stack.aclose()

    async def serve(
        self,
        services: Iterable[Service],
        access: AccessChecks,
        tracing: Tracing,
        *,
        open_files: int,
    ) -> None:
        """Serve the API, if the settings say so; this process may have so many files open."""
        settings = self._settings
        if not settings.serves_http_api:
            return
        shared = None if settings.probes_listen else self._probes
        port = shared or await self._listen(settings.http_listen, starting_app())
        port.connections.max_held = max_http_connections(open_files, settings.http_connections_max)
        app = api_app(
            HttpApi(
                services,
                access,
                port.connections,
                tracing,
                token_in_query=settings.http_token_in_query,
                batching=settings.batching,
            ),
            origins=settings.allowed_origins,
            request_bytes=settings.request_bytes_max,
        )
        if shared is not None:
            add_probes(app, self._readiness.state)
        await port.serve(app)

    async def _listen(self, address: str, app: web.Application) -> HttpPort:
        # The probes of an orchestrator need no TLS, but a port has one kind of connections.
        pair = self._tls if address == self._settings.http_listen else None
        tls = server_context(pair) if pair else None
        host, number = split_address(address)
        port = HttpPort(host, int(number), app, tls=tls, is_shared=self._has_supervisor)
        return await self._stack.enter_async_context(port)
