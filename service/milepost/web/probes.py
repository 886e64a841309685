"""The pages /healthz, /readyz and /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from milepost import telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Metrics = Callable[[], Awaitable[bytes]]
    Page = Callable[[web.Request], Awaitable[web.Response]]


async def own_metrics() -> bytes:
    """Return the metrics of this process."""
    return telemetry.metrics_page()


def probe_app(
    problem: Callable[[], str | None], page_of_metrics: Metrics = own_metrics
) -> web.Application:
    """Return an application with the pages; see `add_probes`."""
    app = web.Application()
    add_probes(app, problem, page_of_metrics)
    return app


def add_probes(
    app: web.Application,
    problem: Callable[[], str | None],
    page_of_metrics: Metrics = own_metrics,
) -> None:
    """Add the pages to an application. A connection that asks for one has one request.

    Args:
        app: the application.
        problem: returns why the service is not ready, or None.
        page_of_metrics: returns the content of /metrics.
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
            body=await page_of_metrics(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    for path, page in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics)):
        app.router.add_get(path, _closing(page))


def _closing(page: Page) -> Page:
    async def handle(request: web.Request) -> web.Response:
        response = await page(request)
        response.force_close()
        response.headers["Connection"] = "close"
        return response

    return handle
