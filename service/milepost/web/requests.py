"""Requests to messages: path, query, headers and body of a request as one message."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, Final, Never

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from google.protobuf.descriptor import FieldDescriptor

from milepost.domain.errors import InvalidRequest, Violation
from milepost.web.json_messages import from_plain
from milepost.web.json_problems import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message
    from multidict import MultiMapping

    from milepost.web.http_call import HttpCall
    from milepost.web.routes import Route

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
"""The header that is the field `request_id` (ietf-httpapi-idempotency-key-header)."""
MAX_BODY_S: Final = 10.0
"""Time in which the body of a request must have arrived."""
ANY_TAG: Final = "*"
"""The tag in a condition that every operation fulfils (RFC 9110, 13.1)."""
_RESUMED: Final = "after_revision"
_ENTITY_TAG: Final = re.compile(r'"(\d{1,18})"', re.ASCII)
_LAST_EVENT_ID: Final = re.compile(r"\d{1,18}", re.ASCII)


async def message_of(route: Route, call: HttpCall) -> Message:
    """Return the request message of a call.

    Raises:
        InvalidRequest: the request says something twice, or something that is not in the message.
        web.HTTPException: the body is too large, too slow or malformed, or not JSON by its
            content type.
    """
    request = call.request
    plain = await _body(request) if route.has_body else {}
    _add(plain, _query(route, call.parameters), "query")
    _add(plain, dict(request.match_info), "path")
    headers = dict(_headers(route, request.headers))
    if _RESUMED in headers:  # a browser repeats the URL that it began with
        plain.pop(_RESUMED, None)
        plain.pop(_camel(_RESUMED), None)
    _add(plain, headers, "headers")
    message = route.request()
    from_plain(plain, message)
    return message


async def _body(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in the body; an empty body is an empty object."""
    data = await _bytes(request)
    if not data:
        return {}
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(reason="the content type must be application/json")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise web.HTTPUnsupportedMediaType(reason="the body must not be compressed")
    try:
        plain = json.loads(
            data, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats
        )
        if b"\\u" in data:  # a lone surrogate has no UTF-8, and so is no text of a message
            json.dumps(plain, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        _refuse("body", "must be JSON, without repeated names and lone surrogates")
    if not isinstance(plain, dict):
        _refuse("body", "must be a JSON object")
    return plain


async def _bytes(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(MAX_BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason="the body took too long") from None
    except (web.RequestPayloadError, HttpProcessingError):
        raise web.HTTPBadRequest(reason="the body is malformed") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _refuse_constant(text: str) -> Never:
    raise ValueError(text)


def _query(route: Route, query: MultiMapping[str]) -> dict[str, Any]:
    """Return the fields in the query. A repeated field stands there several times."""
    if route.has_body and query:
        _refuse("query", "must be empty: the fields stand in the body")
    if not query:
        return {}
    fields = route.request.DESCRIPTOR.fields
    known = {name: field for field in fields for name in (field.name, field.json_name)}
    found: dict[str, Any] = {}
    for name in query:
        field, texts = known.get(name), query.getall(name)
        if field is None:
            _refuse("query", f"has no parameter {shown(name)}")
        if field.is_repeated:
            found[name] = [_parameter(field, text) for text in texts]
        elif len(texts) > 1:
            _refuse(name, "must be given once")
        else:
            found[name] = _parameter(field, texts[0])
    return found


def _parameter(field: Any, text: str) -> Any:
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"true": True, "false": False}.get(text, text)
    return text


def _headers(route: Route, headers: MultiMapping[str]) -> Iterable[tuple[str, Any]]:
    """Yield the fields that HTTP has headers for, where the message has them."""
    fields = route.request.DESCRIPTOR.fields_by_name
    if "request_id" in fields and IDEMPOTENCY_KEY in headers:
        yield "request_id", _header(headers, IDEMPOTENCY_KEY).strip('"')
    tags = _header(headers, "If-Match") if "If-Match" in headers else ANY_TAG
    if "expected_revision" in fields and tags != ANY_TAG:
        tag = _ENTITY_TAG.fullmatch(tags)
        if tag is None:
            _refuse("If-Match", 'must be the ETag of the operation, such as "3"')
        yield "expected_revision", tag[1]
    if route.is_watch and (revision := _header(headers, "Last-Event-ID")):
        if not _LAST_EVENT_ID.fullmatch(revision):
            _refuse("Last-Event-ID", "must be a revision")
        yield _RESUMED, revision


def _header(headers: MultiMapping[str], name: str) -> str:
    """Return the only value of a header, or an empty text."""
    texts = headers.getall(name, [])
    if len(texts) > 1:
        _refuse(name, "must be given once")
    return texts[0].strip() if texts else ""


def _add(plain: dict[str, Any], more: dict[str, Any], place: str) -> None:
    """Add the fields of another part of the request, none of which may stand there already."""
    for name, value in more.items():
        if {name, _camel(name)} & plain.keys():
            _refuse(name, f"must not be in the {place} too")
        plain[name] = value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _refuse(field: str, problem: str) -> Never:
    raise InvalidRequest(Violation(field, problem))
