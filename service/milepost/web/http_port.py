"""An HTTP port that serves one application, such as the probes of several processes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web

from milepost.web.connections import HttpConnections

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

SHUTDOWN_TIMEOUT_S: Final = 1.0


@contextlib.asynccontextmanager
async def http_port(
    host: str, port: int, application: web.Application, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Serve the application on the port inside of the context."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    connections = HttpConnections(cast("web.Server", runner.server))  # there is one after set-up
    server = await asyncio.get_running_loop().create_server(connections, host, port, ssl=tls)
    try:
        yield
    finally:
        server.close()
        await runner.cleanup()
