"""Messages to responses: their JSON, and the headers that HTTP has for what they say."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from milepost.web.json_messages import to_json
from milepost.web.requests import ANY_TAG

if TYPE_CHECKING:
    from milepost.web.routes import Route

REPLAYED: Final = "Idempotent-Replayed"
JOINED: Final = "Milepost-Joined"
CREATE: Final = "milepost.v1.OperationService/CreateOperation"
_READING: Final = frozenset({"GET", "HEAD"})
_FLAGS: Final = {"replayed": REPLAYED, "joined": JOINED}
"""Headers of what a response says beside its content, the operation in most cases."""


def response_of(route: Route, message: Any, request: web.Request) -> web.Response:
    """Return the response to a request that succeeded.

    An operation has its revision as its ETag, and while it is active the pause before the next
    poll as `Retry-After`.
    """
    answer = getattr(message, route.response_field) if route.response_field else message
    headers = _headers(route, message)
    if request.method in _READING and _is_known(headers.get("ETag"), request):
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return web.Response(
        body=to_json(answer),
        status=HTTPStatus.ACCEPTED if route.method == CREATE else HTTPStatus.OK,
        content_type="application/json",
        headers=headers,
    )


def _headers(route: Route, message: Any) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    for field, header in _FLAGS.items():
        if getattr(message, field, False):
            headers[header] = "true"
    if route.response_field == "operation":
        headers |= _headers_of_operation(route, message.operation)
    return headers


def _headers_of_operation(route: Route, operation: Any) -> dict[str, str]:
    headers = {"ETag": f'"{operation.revision}"'}
    if operation.HasField("next_step_deadline"):
        pause = operation.retry_after
        headers["Retry-After"] = str(max(1, pause.seconds + (pause.nanos > 0)))
    if route.method == CREATE:
        headers["Location"] = f"/v1/operations/{operation.id}"
    return headers


def _is_known(tag: str | None, request: web.Request) -> bool:
    """Return True if the caller has this revision already (RFC 9110, 13.1.2)."""
    given = ",".join(request.headers.getall("If-None-Match", ())).split(",")
    known = {each.strip().removeprefix("W/") for each in given}
    return tag is not None and not known.isdisjoint({tag, ANY_TAG})
