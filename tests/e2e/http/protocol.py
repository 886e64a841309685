"""Requests and answers of the API over HTTP, from the annotations of the protos.

Written apart from the service, so that both would have to be wrong in the same way.
"""

import json
import re
import urllib.parse
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc import StatusCode

from tests.canaries import CANARIES
from tests.e2e.matrix import Answer, Cell
from tests.e2e.rpcs import CALL_SECONDS, RPCS, Rpc

PROBLEM: Final = "application/problem+json"
_CODES: Final = {
    HTTPStatus.BAD_REQUEST: StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: StatusCode.NOT_FOUND,
    HTTPStatus.PRECONDITION_FAILED: StatusCode.ABORTED,
    HTTPStatus.TOO_MANY_REQUESTS: StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.INTERNAL_SERVER_ERROR: StatusCode.INTERNAL,
    HTTPStatus.SERVICE_UNAVAILABLE: StatusCode.UNAVAILABLE,
}
_CONFLICTS: Final = {
    "ILLEGAL_TRANSITION": StatusCode.FAILED_PRECONDITION,
    "CANCELLATION_NOT_REQUESTED": StatusCode.FAILED_PRECONDITION,
    "WEBHOOKS_NOT_CONFIGURED": StatusCode.FAILED_PRECONDITION,
    "REQUEST_ID_REUSED": StatusCode.ALREADY_EXISTS,
    "UNIQUE_KEY_TAKEN": StatusCode.ALREADY_EXISTS,
}
"""The codes of 409, by reason; any other reason is ABORTED."""


@dataclass(frozen=True, kw_only=True)
class Path:
    """The annotation of one method."""

    verb: str
    pattern: str
    has_body: bool
    response_field: str


def path_of(rpc: Rpc) -> Path | None:
    """Return the annotation of a method of Milepost, if it has one."""
    if rpc.is_google:
        return None
    service = rpc.request.DESCRIPTOR.file.services_by_name[rpc.name.split("/")[0].split(".")[-1]]
    method = service.methods_by_name[rpc.method]
    rule: Any = method.GetOptions().Extensions[annotations_pb2.http]  # type: ignore[index]
    verb = rule.WhichOneof("pattern")
    if verb is None:
        return None
    return Path(
        verb=verb.upper(),
        pattern=getattr(rule, verb),
        has_body=bool(rule.body),
        response_field=rule.response_body,
    )


HTTP_RPCS: Final = tuple(rpc for rpc in RPCS if path_of(rpc) is not None)
"""The methods that have a path."""


def url_of(rpc: Rpc, message: Message) -> tuple[str, str, dict[str, Any] | None]:
    """Return verb, path with query, and body of a request."""
    path = path_of(rpc)
    assert path is not None
    plain = json_format.MessageToDict(message, preserving_proto_field_name=True)

    def value(match: re.Match[str]) -> str:
        return urllib.parse.quote(plain.pop(match[1], ""), safe="")

    place = re.sub(r"\{(\w+)\}", value, path.pattern)
    if path.has_body:
        return path.verb, place, plain
    query = urllib.parse.urlencode(
        {name: json.dumps(v) if isinstance(v, bool) else v for name, v in plain.items()},
        doseq=True,
    )
    return path.verb, f"{place}?{query}" if query else place, None


async def ask(session: aiohttp.ClientSession, url: str, cell: Cell) -> Answer:
    """Return the answer to one call; that of a watch is its first event."""
    verb, place, body = url_of(cell.rpc, cell.request)
    headers = {name: str(value) for name, value in cell.person.metadata}
    headers["traceparent"] = f"00-{cell.trace_id}-{16 * '1'}-00"
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
    async with session.request(
        verb, url + place, json=body, headers=headers, timeout=timeout
    ) as response:
        is_events = response.content_type == "text/event-stream"
        data = await (response.content.readuntil(b"\n\n") if is_events else response.read())
        sent = tuple(
            (name, value) for name, value in sorted(response.headers.items()) if name != "Date"
        )
    CANARIES.saw("an HTTP response", data)
    return _answer(cell.rpc, response.status, data, sent)


def _answer(rpc: Rpc, status: int, data: bytes, headers: tuple[tuple[str, str], ...]) -> Answer:
    is_refusal = dict(headers).get("Content-Type", "").startswith(PROBLEM)
    problem = json.loads(data) if is_refusal else {}
    reason = problem.get("reason", "")
    code = StatusCode.OK
    if data.startswith(b"event: error"):  # a busy machine refused after it had sent the headers
        code = StatusCode.UNAVAILABLE  # so that it is asked again
    elif is_refusal:
        assert problem["status"] == status
        code = _CODES.get(HTTPStatus(status)) or _CONFLICTS.get(reason, StatusCode.ABORTED)
    return Answer(
        code=code,
        message=problem.get("detail", ""),
        reason=reason,
        details=data if is_refusal else b"",
        initial=headers,
        trailing=(),
        response=_response(rpc, data) if code is StatusCode.OK else None,
    )


def _response(rpc: Rpc, data: bytes) -> Message:
    """Return the response message of a success, from its JSON."""
    path = path_of(rpc)
    assert path is not None
    if rpc.shape.endswith("stream"):
        line = next(line for line in data.splitlines() if line.startswith(b"data: "))
        plain = {"operation": json.loads(line.removeprefix(b"data: "))}
    else:
        plain = json.loads(data)
        if path.response_field:
            plain = {path.response_field: plain}
    response = rpc.response()
    json_format.ParseDict(plain, response)
    return response
