"""The pages /healthz, /readyz and /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from milepost import telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def own_metrics() -> bytes:
    """Return the metrics of this process."""
    return telemetry.metrics_page()


def probe_app(
    problem: Callable[[], str | None], page: Callable[[], Awaitable[bytes]] = own_metrics
) -> web.Application:
    """Return the application.

    Args:
        problem: returns why the service is not ready, or None.
        page: returns the metrics.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_request: web.Request) -> web.Response:
        reason = problem()
        if reason is None:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not ready", "reason": reason}, status=503)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(
            body=await page(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def close(_request: web.Request, response: web.StreamResponse) -> None:
        response.force_close()
        response.headers["Connection"] = "close"

    app = web.Application()
    app.on_response_prepare.append(close)  # a connection has one request
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
        ]
    )
    return app
