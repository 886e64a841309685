"""Requests of browsers from other origins (the Fetch standard, section 3.2)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from milepost.web.problems import problem_of_status, problem_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ANY_ORIGIN: Final = "*"
_METHODS: Final = "GET, POST, DELETE"
_REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer,"
    " traceparent"
)
_RESPONSE_HEADERS: Final = (
    "ETag, Idempotent-Replayed, Location, Milepost-Joined, Retry-After, WWW-Authenticate"
)
_MAX_AGE_S: Final = 3_600
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Cors:
    """Lets browsers read responses from pages of the allowed origins, and of no others."""

    def __init__(self, origins: frozenset[str]) -> None:
        """Allow `origins`, such as ``https://console.example``, or any with ``*``."""
        self._origins = origins

    @web.middleware
    async def answer_preflight(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer the question of a browser whether it may send a request."""
        asked = request.headers.get("Access-Control-Request-Method")
        if request.method != "OPTIONS" or asked is None or not self._allows(request):
            return await handler(request)
        return web.Response(
            status=HTTPStatus.NO_CONTENT,
            headers={
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": _REQUEST_HEADERS,
                "Access-Control-Max-Age": str(_MAX_AGE_S),
            },
        )

    @web.middleware
    async def refuse_foreign(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a change by a page of another origin that is not allowed.

        A browser sends a POST without a body unasked, and shows the certificate of its user.
        """
        if request.method in _SAFE or not self._is_foreign(request):
            return await handler(request)
        status = HTTPStatus.FORBIDDEN
        return problem_response(problem_of_status(status, "the origin of the page is not allowed"))

    def _is_foreign(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        same = origin is not None and origin.partition("://")[2] == request.headers.get("Host")
        return origin is not None and not same and not self._allows(request)

    async def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Say in a response to an allowed origin that its page may read it."""
        if self._origins:
            response.headers.add("Vary", "Origin")
        if self._allows(request):
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = _RESPONSE_HEADERS

    def _allows(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        return origin is not None and not self._origins.isdisjoint({origin, ANY_ORIGIN})
