"""The application of a port that serves the API."""

from __future__ import annotations

from http import HTTPStatus
from importlib import resources
from typing import TYPE_CHECKING

from aiohttp import web

from milepost.web.cors import Cors
from milepost.web.problems import problem_of_status, problem_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from milepost.web.http_api import HttpApi

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def api_app(api: HttpApi, *, origins: frozenset[str], request_bytes: int) -> web.Application:
    """Return the application, without probes.

    Args:
        api: the paths.
        origins: of the pages whose browsers may read responses.
        request_bytes: the largest body.
    """
    cors = Cors(origins)
    app = web.Application(
        middlewares=[cors.answer_preflight, cors.refuse_foreign, _as_problems],
        client_max_size=request_bytes,
    )
    app.on_response_prepare.append(cors.mark)
    api.add_to(app)
    app.router.add_get("/openapi.json", _described())
    return app


def _described() -> Handler:
    """Return the handler of the description of the API, which is the same for every caller."""
    text = resources.files("milepost.web").joinpath("description/openapi.json").read_bytes()

    async def description(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=text, content_type="application/json")

    return description


@web.middleware
async def _as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a path or a verb that does not exist with problem details, as any other refusal."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        status = HTTPStatus(error.status)
        response = problem_response(problem_of_status(status))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
