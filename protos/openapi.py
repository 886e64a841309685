"""The description of the API over HTTP (OpenAPI 3.1), completed from the limits of the product.

The plugin of grpc-gateway knows paths, types and comments. It does not know the rules of fields,
which the service checks, nor what HTTP adds: headers, problem documents, server-sent events and
credentials.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from milepost.api.convert import REQUEST_ID
from milepost.domain.api_key import MAX_GRANTS
from milepost.domain.limits import Limits
from milepost.domain.operation import ID_PATTERN
from milepost.domain.transitions import CALLBACK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Schema = dict[str, Any]
LIMITS: Final = Limits()
VERBS: Final = ("get", "post", "put", "patch", "delete")
MAX_INT32: Final = 2**31 - 1
_CONTROL: Final = r"\u0000-\u001f\u007f"
_BLANK: Final = r"\s\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NOT_BLANK: Final = rf"[^{_CONTROL}{_BLANK}]"
_REVISION: Final = "[1-9][0-9]{0,17}"
_BASE64: Final = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def _line(max_length: int) -> Schema:
    """Return the rules of a text on one line that is not blank."""
    pattern = rf"^[^{_CONTROL}]*{_NOT_BLANK}[^{_CONTROL}]*$"
    return {"minLength": 1, "maxLength": max_length, "pattern": pattern}


def _integer(lowest: int, highest: int = MAX_INT32) -> Schema:
    return {"minimum": lowest, "maximum": highest}


def _packed(value: Schema, type_url: Schema) -> Schema:
    properties = {"@type": {"type": "string"} | type_url, "value": value}
    required = ["@type", "value"]
    return {"type": "object", "properties": properties, "required": required} | _CLOSED


_CLOSED: Final[Schema] = {"additionalProperties": False}
_NAME: Final = _line(LIMITS.name_length)
_DURATION: Final[Schema] = {"pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?s$"}
_PACKED: Final[Schema] = {
    "anyOf": [
        _packed({"type": "object"}, {"const": "type.googleapis.com/google.protobuf.Struct"}),
        _packed({}, {"const": "type.googleapis.com/google.protobuf.Value"}),
        _packed(
            {"type": "string", "pattern": _BASE64},
            {
                "pattern": r"^[a-z0-9.-]+/[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$",
                "maxLength": LIMITS.type_url_length,
                "not": {"pattern": r"/(google|milepost)\."},  # the service knows these
            },
        ),
    ]
}
"""A packed message: of the two types that hold any JSON, or of one that the service may not know.

Messages of other well-known types have the fields of their own JSON mapping.
"""
_CLAIMED: Final[Schema] = {"minItems": 1, "maxItems": LIMITS.claim_functions}
_GRANT: Final[Schema] = {"pattern": r"^[A-Za-z0-9._:/-]{1,254}\*?$"}

FIELDS: Final[dict[str, Schema]] = {
    "operation_id": {"pattern": f"^{ID_PATTERN.pattern}$"},
    "operationId": {"pattern": f"^{ID_PATTERN.pattern}$"},
    "delivery_id": {"pattern": "^msg_[0-9a-f]{32}$"},
    "key_id": {"pattern": "^[0-9a-f]{16}$"},
    "function": _NAME,
    "version": _NAME,
    "worker": _NAME,
    "owner": _NAME,
    "originalRequestId": _NAME,
    "uniqueKey": _line(LIMITS.unique_key_length),
    "reason": _line(LIMITS.reason_length),
    "message": {"maxLength": LIMITS.message_length, "pattern": r"^[^\u0000]*$"},
    "callbackUrl": {
        "format": "uri",
        "maxLength": LIMITS.callback_url_length,
        "pattern": "^https://[!-~]+$",
    },
    "priority": _integer(0, LIMITS.priority_max),
    "pageSize": _integer(0),
    "maxOperations": _integer(0, LIMITS.claim_operations),
    "attempt": _integer(1),
    "maxAttempts": _integer(1),
    "afterRevision": {"pattern": f"^(0|{_REVISION})$"},
    "progress": {"minimum": 0, "maximum": 1},
    "backoffMultiplier": {"minimum": 1, "maximum": LIMITS.backoff_multiplier_max},
    "subject": {"minLength": 1, "maxLength": 255, "pattern": "^[!-~]+( [!-~]+)*$"},
} | dict.fromkeys(
    (
        "delay",
        "grace",
        "initialBackoff",
        "lease",
        "maxBackoff",
        "queueTimeout",
        "retryAfter",
        "retryDelay",
        "runTimeout",
        "timeout",
        "ttl",
    ),
    _DURATION,
)
"""Rules of fields of requests, by their names in JSON."""
LISTS: Final[dict[str, tuple[Schema, Schema]]] = {
    "callbackEvents": ({}, {"enum": list(CALLBACK_EVENTS)}),
    "errors": ({"minItems": 1}, {}),
    "roles": ({"minItems": 1}, {}),
}
"""Rules of repeated fields of requests, and of their items."""
HEADERS: Final[dict[str, tuple[str, str, str]]] = {
    "requestId": ("Idempotency-Key", f"^{REQUEST_ID.pattern}$", "The field `request_id`."),
    "expectedRevision": (
        "If-Match",
        f'^"{_REVISION}"$',
        "The field `expected_revision`: the ETag of the operation.",
    ),
}
"""Headers that stand for fields of requests."""
REFUSALS: Final = (400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 429, 500, 503)


def completed(parts: Iterable[str]) -> str:
    """Return the whole description as JSON text, from the one of each service."""
    document = _merged([json.loads(part) for part in parts])
    for path in document["paths"].values():
        for verb in VERBS:
            if verb in path:
                _complete(path[verb])
    schemas = document["components"]["schemas"]
    del schemas["google.rpc.Status"]
    schemas["Problem"] = _PROBLEM
    for name in ("OperationError", "RetryPolicy"):  # the parts of requests
        _restrict(schemas[f"milepost.v1.{name}"]["properties"])
        schemas[f"milepost.v1.{name}"] |= _CLOSED
    error = schemas["milepost.v1.OperationError"]["properties"]
    for field in ("code", "message"):
        error[field] = {"type": "string", "minLength": 1, "pattern": rf"[^{_BLANK}\u001c-\u001f]"}
    for schema in schemas.values():
        if "enum" in schema and not schema["enum"][0].startswith(_DEFAULTED):
            schema["enum"] = schema["enum"][1:]  # a request with UNSPECIFIED is refused
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


_DEFAULTED: Final = ("OPERATION_VIEW_", "UNIQUE_KEY_POLICY_")


def _merged(parts: list[Schema]) -> Schema:
    paths: Schema = {}
    schemas: Schema = {}
    for part in parts:
        for path, verbs in part["paths"].items():
            paths.setdefault(path, {}).update(verbs)
        schemas |= part["components"]["schemas"]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Milepost", "version": "1.0.0", "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [tag for part in parts for tag in part["tags"]],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": {"Problem": _PROBLEM_RESPONSE},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _complete(operation: Schema) -> None:
    """Complete one call."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    fields = body["schema"].setdefault("properties", {}) if body else {}
    parameters = operation.setdefault("parameters", [])
    for parameter in parameters:
        _restrict({parameter["name"]: parameter["schema"]})
    parameters += list(_headers(operation, fields))
    _restrict(fields)
    if body:
        body["schema"] |= _CLOSED
        operation["requestBody"]["required"] = "required" in body["schema"]
    if "retryDelay" in fields:
        retryable = {"properties": {"retryable": {"const": True}}, "required": ["retryable"]}
        body["schema"]["dependentSchemas"] = {"retryDelay": retryable}
    if not parameters:
        del operation["parameters"]
    operation["responses"] = _responses(operation)


def _headers(operation: Schema, fields: Schema) -> Iterator[Schema]:
    """Yield the headers of a call; a field that has one is sent in it."""
    parameters = operation["parameters"]
    for field, (header, pattern, text) in HEADERS.items():
        found = fields.pop(field, None)
        for parameter in [each for each in parameters if each["name"] == field]:
            found = parameters.pop(parameters.index(parameter))
        if found is not None:
            yield _header(header, pattern, text)
    name = operation["operationId"]
    if name.endswith("_GetOperation"):
        yield _header("If-None-Match", f'^"{_REVISION}"$', "The ETag that the caller has.")
        yield _header("Prefer", "^wait=[0-9]{1,3}$", "Seconds to wait for a change.")
    if name.endswith("_WatchOperation"):
        yield _header("Last-Event-ID", f"^{_REVISION}$", "Resume after this revision.")


def _header(name: str, pattern: str, text: str) -> Schema:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "header", "description": text, "schema": schema}


def _restrict(fields: Schema) -> None:
    """Add their rules to the fields of a request."""
    for name, schema in fields.items():
        schema.update(FIELDS.get(name, {}))
        if name in {"result", "checkpoint"}:
            del schema["properties"], schema["additionalProperties"]
            schema.update(_PACKED)
        of_list, of_item = LISTS.get(name, ({}, {}))
        if name == "functions":
            is_key = "subject" in fields
            of_list, of_item = ({"maxItems": MAX_GRANTS}, _GRANT) if is_key else (_CLAIMED, _NAME)
        schema.update(of_list)
        schema.get("items", {}).update(of_item)


def _responses(operation: Schema) -> Schema:
    responses: Schema = operation["responses"]
    del responses["default"]
    name = operation["operationId"]
    if name.endswith("_CreateOperation"):
        responses["202"] = responses.pop("200") | {"headers": _HEADERS_OF_CREATE}
    if name.endswith("_GetOperation"):
        responses["304"] = {"description": "The operation has the ETag of `If-None-Match`."}
    if name.endswith("_WatchOperation"):
        responses["200"]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
        responses["204"] = {"description": "The operation has ended, and had no later change."}
    ok = next(responses[status] for status in ("200", "202") if status in responses)
    schema = ok["content"].get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith(".Operation"):
        ok["headers"] = _HEADERS_OF_OPERATION | ok.get("headers", {})
    if name.endswith(_REPEATABLE):
        ok["headers"] = _REPLAYED
    refusals = {str(status): {"$ref": "#/components/responses/Problem"} for status in REFUSALS}
    return dict(sorted((responses | refusals).items()))


def _sent(text: str) -> Schema:
    return {"description": text, "schema": {"type": "string"}}


_REPEATABLE: Final = ("_RotateSigningSecret", "_RedeliverWebhook", "_CreateApiKey")
"""The calls that take a `request_id` and do not answer with an operation."""
_REPLAYED: Final = {"Idempotent-Replayed": _sent("`true` if the response repeats an earlier one.")}
_HEADERS_OF_OPERATION: Final = {
    "ETag": _sent("The revision of the operation."),
    "Retry-After": _sent("Seconds to the next poll, while the operation is active."),
    **_REPLAYED,
}
_HEADERS_OF_CREATE: Final = {
    "Location": _sent("The path of the operation."),
    "Milepost-Joined": _sent("`true` if the create joined an operation with its `unique_key`."),
}
_ABOUT: Final = (
    "Long-running operations. Ranges and lengths are the default limits, which an operator may"
    " change. docs/http.md of the project describes what the protocol adds to the calls."
)
_PROBLEM: Final[Schema] = {
    "type": "object",
    "description": "A refusal (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string", "description": "The reason of the gRPC error."},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "violations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
                "required": ["field", "problem"],
            },
        },
    },
    "required": ["type", "title", "status"],
}
_PROBLEM_RESPONSE: Final[Schema] = {
    "description": "The request is refused.",
    "headers": {"Retry-After": _sent("Seconds to the next attempt, of 429 and 503.")},
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
