"""The pages /healthz, /readyz and /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from milepost import telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Metrics = Callable[[str], Awaitable[tuple[bytes, str]]]
    Page = Callable[[web.Request], Awaitable[web.Response]]


class State(NamedTuple):
    """The state of the service, as its readiness page reports it."""

    problem: str | None
    """The reason why it is not ready, or None."""
    degraded: Mapping[str, str]
    """Parts that do not work although it may be ready, each with the cause."""


async def own_metrics(accept: str) -> tuple[bytes, str]:
    """Return the metrics of this process in a format that is accepted, and their content type."""
    return telemetry.metrics_page(accept)


def probe_app(
    state: Callable[[], State], page_of_metrics: Metrics = own_metrics
) -> web.Application:
    """Return an application with the pages; see `add_probes`."""
    app = web.Application()
    add_probes(app, state, page_of_metrics)
    return app


def add_probes(
    app: web.Application,
    state: Callable[[], State],
    page_of_metrics: Metrics = own_metrics,
) -> None:
    """Add the pages to an application. A connection that asks for one has one request.

    Args:
        app: the application.
        state: returns the state of the service.
        page_of_metrics: returns /metrics and its content type, for the header `Accept`.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_request: web.Request) -> web.Response:
        problem, degraded = state()
        page: dict[str, object] = {"status": "ready"}
        if problem is not None:
            page = {"status": "not ready", "reason": problem}
        if degraded:
            page["degraded"] = degraded
        return web.json_response(page, status=200 if problem is None else 503)

    async def metrics(request: web.Request) -> web.Response:
        body, content_type = await page_of_metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    for path, page in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics)):
        app.router.add_get(path, _closing(page))


def _closing(page: Page) -> Page:
    async def handle(request: web.Request) -> web.Response:
        response = await page(request)
        response.force_close()
        response.headers["Connection"] = "close"
        return response

    return handle
