"""The port of the API before the replica serves: a request is refused for the moment.

The paths of the API do not exist yet, but an answer of 404 would say that the operation does not.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from milepost.web.event_streams import refused_for_now
from milepost.web.problems import problem_of_status, problem_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RETRY_AFTER_S: Final = 1


def starting_app() -> web.Application:
    """Return an application that refuses every path that is not added to it with 503."""
    return web.Application(middlewares=[_refuse_missing])


@web.middleware
async def _refuse_missing(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        problem = problem_of_status(HTTPStatus.SERVICE_UNAVAILABLE, "the replica is starting")
        response = problem_response(problem)
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        response.force_close()  # the connection belongs to this application
        is_watch = request.path.endswith(":watch")
        return refused_for_now(response, request) if is_watch else response
