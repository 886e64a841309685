"""Requests to messages: path, query, headers and body of a request as one message."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, Never

from aiohttp import web
from google.protobuf.descriptor import FieldDescriptor

from milepost.domain.errors import InvalidRequest, Violation
from milepost.web.json_messages import from_plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

    from milepost.web.routes import Route

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
"""The header that is the field `request_id` (ietf-httpapi-idempotency-key-header)."""
_ENTITY_TAG: Final = re.compile(r'"(\d{1,18})"', re.ASCII)
_LAST_EVENT_ID: Final = re.compile(r"\d{1,18}", re.ASCII)


async def message_of(route: Route, request: web.Request) -> Message:
    """Return the request message of a request.

    Raises:
        InvalidRequest: the request says something twice, or something that is not in the message.
        web.HTTPException: the body is too large, or not JSON by its content type.
    """
    plain = await _body(request) if route.has_body else {}
    _add(plain, _query(route, request), "query")
    _add(plain, dict(request.match_info), "path")
    _add(plain, dict(_headers(route, request)), "headers")
    message = route.request()
    try:
        from_plain(plain, message)
    except ValueError as problem:
        _refuse("request", str(problem))
    return message


async def _body(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in the body; an empty body is an empty object."""
    data = await request.read()
    if not data:
        return {}
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(reason="the content type must be application/json")
    try:
        plain = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        _refuse("body", "must be JSON")
    if not isinstance(plain, dict):
        _refuse("body", "must be a JSON object")
    return plain


def _refuse_constant(text: str) -> Never:
    raise ValueError(text)


def _query(route: Route, request: web.Request) -> dict[str, Any]:
    """Return the fields in the query. A repeated field stands there several times."""
    if route.has_body and request.query:
        _refuse("query", "must be empty: the fields stand in the body")
    fields = route.request.DESCRIPTOR.fields
    known = {name: field for field in fields for name in (field.name, field.json_name)}
    found: dict[str, Any] = {}
    for name in request.query:
        field, texts = known.get(name), request.query.getall(name)
        if field is None:
            _refuse("query", f"has no parameter {name}")
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


def _headers(route: Route, request: web.Request) -> Iterable[tuple[str, Any]]:
    """Yield the fields that HTTP has headers for, where the message has them."""
    fields = route.request.DESCRIPTOR.fields_by_name
    if "request_id" in fields and IDEMPOTENCY_KEY in request.headers:
        yield "request_id", request.headers[IDEMPOTENCY_KEY].strip().strip('"')
    if "expected_revision" in fields and "If-Match" in request.headers:
        tag = _ENTITY_TAG.fullmatch(request.headers["If-Match"].strip())
        if tag is None:
            _refuse("If-Match", 'must be the ETag of the operation, such as "3"')
        yield "expected_revision", tag[1]
    if route.is_watch and "Last-Event-ID" in request.headers:
        revision = request.headers["Last-Event-ID"].strip()
        if revision and not _LAST_EVENT_ID.fullmatch(revision):
            _refuse("Last-Event-ID", "must be a revision")
        yield "after_revision", revision or "0"


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
