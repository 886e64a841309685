"""The HTTP ports: probes from the start, and the API once the replica serves."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self, cast

from aiohttp import web

from milepost.config import split_address
from milepost.main.access import tls_of
from milepost.web.api_app import api_app
from milepost.web.connections import MAX_REQUEST_S, HttpConnections
from milepost.web.http_api import HttpApi
from milepost.web.probes import add_probes, probe_app
from milepost.web.tls import server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from milepost.access.checks import AccessChecks
    from milepost.api.services import Service
    from milepost.config import Settings
    from milepost.main.readiness import Readiness
    from milepost.telemetry import Tracing

SHUTDOWN_TIMEOUT_S: Final = 1.0


class HttpPorts:
    """One port for both, or one for the API and another one for the probes.

    Until the replica serves, the port of the API answers probes only, if any.
    """

    def __init__(self, settings: Settings, readiness: Readiness) -> None:
        """Describe the ports; nothing listens yet."""
        self._settings = settings
        self._readiness = readiness
        self._stack = contextlib.AsyncExitStack()
        self._connections: HttpConnections | None = None

    async def __aenter__(self) -> Self:
        """Answer the probes."""
        settings = self._settings
        address = settings.probes_listen or settings.http_listen
        if address:
            app = probe_app(lambda: self._readiness.problem)
            # The probes of an orchestrator need no TLS, but on a shared port there is one kind.
            shared = address == settings.http_listen
            self._connections = await self._listen(address, app, self._tls() if shared else None)
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop to listen."""
        await self._stack.aclose()

    async def serve(
        self,
        services: Iterable[Service],
        access: AccessChecks,
        tracing: Tracing,
        *,
        max_connections: int,
    ) -> None:
        """Serve the API, if the settings say so, on at most so many connections of callers."""
        settings = self._settings
        if not settings.serves_http_api:
            return
        connections = self._connections
        if connections is None or settings.probes_listen:
            connections = await self._listen(settings.http_listen, web.Application(), self._tls())
        connections.max_held = max_connections
        app = api_app(
            HttpApi(
                services,
                access,
                connections,
                tracing,
                token_in_query=settings.http_token_in_query,
            ),
            origins=settings.allowed_origins,
            request_bytes=settings.request_bytes_max,
        )
        if not settings.probes_listen:
            add_probes(app, lambda: self._readiness.problem)
        connections.server = await self._server(app)

    async def _listen(
        self, address: str, app: web.Application, tls: ssl.SSLContext | None
    ) -> HttpConnections:
        connections = HttpConnections(await self._server(app))
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            connections,
            host,
            int(port),
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else MAX_REQUEST_S,
        )
        self._stack.callback(server.close)
        return connections

    async def _server(self, app: web.Application) -> web.Server:
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            handler_cancellation=True,  # what is claimed for a caller that has gone goes back
            auto_decompress=False,  # a small body must not become a large one
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        return cast("web.Server", runner.server)  # there is one after set-up

    def _tls(self) -> ssl.SSLContext | None:
        files = tls_of(self._settings) if self._settings.http_tls else None
        if files is None:
            return None
        return server_context(
            certificate=files.certificate,
            key=files.key,
            client_authorities=files.client_authorities,
        )
