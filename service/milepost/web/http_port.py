"""An HTTP port, whose application can be replaced."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Self, cast

from aiohttp import web

from milepost.web.connections import MAX_REQUEST_S, HttpConnections

if TYPE_CHECKING:
    import ssl

SHUTDOWN_TIMEOUT_S: Final = 1.0


class HttpPort:
    """Listens inside of a ``with`` block."""

    def __init__(
        self,
        host: str,
        port: int,
        app: web.Application,
        *,
        tls: ssl.SSLContext | None = None,
        is_shared: bool = False,
    ) -> None:
        """Describe the port.

        Args:
            host: its address.
            port: its number.
            app: what it serves at first.
            tls: encrypts it.
            is_shared: whether other processes listen on it too.
        """
        self._host, self._port, self._app = host, port, app
        self._tls = tls
        self._is_shared = is_shared
        self._stack = contextlib.AsyncExitStack()
        self.connections: HttpConnections

    async def __aenter__(self) -> Self:
        """Listen."""
        self.connections = HttpConnections(await self._server(self._app))
        server = await asyncio.get_running_loop().create_server(
            self.connections,
            self._host,
            self._port,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else MAX_REQUEST_S,
            reuse_port=self._is_shared or None,
        )
        self._stack.callback(server.close)
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Listen no more, and end the requests that run."""
        await self._stack.aclose()

    async def serve(self, app: web.Application) -> None:
        """Serve another application on the connections that open from now on."""
        self.connections.server = await self._server(app)

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
