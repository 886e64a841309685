"""Refused requests as problem details (RFC 9457)."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from google.rpc import error_details_pb2

from milepost.api.refusals import shortened
from milepost.domain.errors import Draining

if TYPE_CHECKING:
    from collections.abc import Mapping

    from milepost.api.refusals import Refusal

MAX_TEXT_BYTES: Final = 1_024
CONTENT_TYPE: Final = "application/problem+json"
_STATUSES: Final[Mapping[str, HTTPStatus]] = {
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "OUT_OF_RANGE": HTTPStatus.BAD_REQUEST,
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "PERMISSION_DENIED": HTTPStatus.FORBIDDEN,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "ALREADY_EXISTS": HTTPStatus.CONFLICT,
    "ABORTED": HTTPStatus.CONFLICT,
    "FAILED_PRECONDITION": HTTPStatus.CONFLICT,
    "RESOURCE_EXHAUSTED": HTTPStatus.TOO_MANY_REQUESTS,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "INTERNAL": HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""By the gRPC code of the error."""
_BY_REASON: Final[Mapping[str, HTTPStatus]] = {
    "REVISION_MISMATCH": HTTPStatus.PRECONDITION_FAILED,  # If-Match did not (RFC 9110, 15.5.13)
}


def status_of(refusal: Refusal) -> HTTPStatus:
    """Return the status of a refused request."""
    return _BY_REASON.get(refusal.reason) or _STATUSES[refusal.code.name]


def problem_of(refusal: Refusal) -> dict[str, Any]:
    """Return the problem details of a refused request.

    `reason` and `metadata` are those of the gRPC error; `violations` names every wrong field.
    """
    status = status_of(refusal)
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": _clean(refusal.message),
        "reason": refusal.reason,
    }
    if refusal.facts:
        problem["metadata"] = {name: _clean(text) for name, text in refusal.facts.items()}
    if refusal.violations:
        problem["violations"] = [
            {"field": _clean(each.field), "problem": _clean(each.problem)}
            for each in refusal.reported()
        ]
    return problem


def _clean(text: str) -> str:
    """Return a text of bounded length, without the lone surrogates that JSON can bring in."""
    return shortened(text.encode(errors="backslashreplace").decode(), MAX_TEXT_BYTES)


def response_of_refusal(refusal: Refusal) -> web.Response:
    """Return the response to a refused request."""
    response = problem_response(problem_of(refusal))
    if isinstance(refusal.detail, error_details_pb2.RetryInfo):
        delay = refusal.detail.retry_delay
        response.headers["Retry-After"] = str(math.ceil(delay.seconds + delay.nanos / 1e9))
    if response.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if refusal.reason == Draining.reason:
        response.force_close()  # the next request goes to another replica
    return response


def problem_bytes(refusal: Refusal) -> bytes:
    """Return the problem details as JSON text on one line."""
    return json.dumps(problem_of(refusal)).encode()


def problem_response(problem: Mapping[str, Any]) -> web.Response:
    """Return a response with problem details."""
    return web.json_response(
        problem,
        status=problem["status"],
        content_type=CONTENT_TYPE,
        headers={"Cache-Control": "no-store"},
    )


def problem_of_status(status: HTTPStatus, detail: str = "") -> dict[str, Any]:
    """Return the problem details of a request that HTTP itself refuses."""
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value}
    return problem | {"detail": detail} if detail else problem
