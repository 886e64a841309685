"""The answers of a scripted service, as a scenario writes them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from milepost_client.gen.milepost.v1 import (
    operation_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)
from tests.unit.client_script import UNDECODABLE, Never, Refusal, ScriptedService, Streamed

MODULES = (operation_service_pb2, worker_service_pb2, webhook_service_pb2)
NEWER_FIELD = b"\xc2\x3e\x05newer"
"""A field with the number 1000 and a text, which no client knows yet."""

Answer = bytes | Message | Refusal | Never | Streamed


def answer(row: Mapping[str, Any]) -> Answer:
    """Return one answer: a message by its type, a refusal, or one of the special ones."""
    match row:
        case {"refuse": code, **facts}:
            return _refusal(code, facts)
        case {"items": items, **rest}:
            then = rest.get("then")
            return Streamed(tuple(map(_message, items)), None if then is None else _end(then))
        case {"never": _}:
            return Never()
        case {"undecodable": _}:
            return UNDECODABLE
        case _:
            return _message(row)


def _end(row: Mapping[str, Any]) -> Any:
    return answer(row)


def _refusal(code: str, facts: Mapping[str, Any]) -> Refusal:
    retry_after = facts.get("retry_after")
    return Refusal(
        grpc.StatusCode[code],
        facts.get("reason", ""),
        facts.get("metadata", {}),
        facts.get("violations", {}),
        None if retry_after is None else timedelta(seconds=retry_after),
        facts.get("domain", "milepost"),
    )


def _message(row: Mapping[str, Any]) -> Message:
    newer = row.get("newer", False)
    [(name, content)] = [(name, each) for name, each in row.items() if name != "newer"]
    kind = next(getattr(module, name) for module in MODULES if hasattr(module, name))
    message: Message = json_format.ParseDict(content, kind())
    if newer:
        _add_newer_fields(message)
    return message


def _add_newer_fields(message: Message) -> None:
    """Add the unknown field to the message and to the operation in it."""
    message.MergeFromString(NEWER_FIELD)
    if "operation" in message.DESCRIPTOR.fields_by_name:
        message.operation.MergeFromString(NEWER_FIELD)  # type: ignore[attr-defined]


def received(service: ScriptedService) -> Mapping[str, Any]:
    """Return what the service was asked, as a scenario expects it."""
    ids: Sequence[str] = [getattr(request, "request_id", "") for request in service.requests]
    return {
        "methods": service.methods,
        "request_ids": len(set(ids)),
        "authorizations": sorted(
            {each.metadata.get("authorization", "") for each in service.asked}
        ),
        "requests": [
            json_format.MessageToDict(each, preserving_proto_field_name=True)
            for each in service.requests
        ],
        "deadline": max((each.left or 0.0) for each in service.asked) if service.asked else 0.0,
    }
