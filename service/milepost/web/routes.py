"""The paths of the API: what the annotations `google.api.http` of the protos say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.api import annotations_pb2
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from milepost.api.services import Service

_VERBS: Final = ("get", "post", "put", "patch", "delete")
_VARIABLE: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path, and the method of the API that it calls."""

    verb: str
    """As HTTP calls it, such as `GET`."""
    template: str
    """The path with its variables, such as `/v1/operations/{operation_id}`."""
    path: str
    """As aiohttp matches it. A variable ends before the colon of a custom verb."""
    method: str
    """Service and method, such as `milepost.v1.OperationService/GetOperation`."""
    request: type[Message]
    has_body: bool
    """True if the fields stand in the body, and not in the query."""
    response_field: str
    """The field of the response that is the answer; the whole response if empty."""
    is_watch: bool
    """True if the answer is a stream of events."""
    behaviour: Any
    """The method of the servicer."""


def routes_of(services: Iterable[Service]) -> Iterator[Route]:
    """Return the paths of all methods of Milepost that have one.

    Those of google.longrunning are annotated too, for the paths of Google.
    """
    for service in services:
        if not service.descriptor.full_name.startswith("milepost."):
            continue
        for method in service.descriptor.methods:
            rule: Any = method.GetOptions().Extensions[annotations_pb2.http]  # type: ignore[index]
            verb = next((verb for verb in _VERBS if rule.HasField(verb)), None)
            if verb is not None:
                yield _route(service, method, rule, verb)


def _route(service: Service, method: MethodDescriptor, rule: Any, verb: str) -> Route:
    return Route(
        verb=verb.upper(),
        template=getattr(rule, verb),
        path=_VARIABLE.sub(r"{\1:[^/:]*}", getattr(rule, verb)),
        method=f"{service.descriptor.full_name}/{method.name}",
        request=GetMessageClass(method.input_type),
        has_body=rule.body == "*",
        response_field=rule.response_body,
        is_watch=method.server_streaming,
        behaviour=getattr(service.servicer, method.name),
    )
