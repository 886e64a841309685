"""Every RPC of the service, as the protos describe it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import grpc
from google.longrunning import operations_proto_pb2
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from milepost.access.policy import POLICY, Permission
from milepost.api.google_messages import google_name
from milepost.api.methods import METHODS
from milepost.domain.transitions import Transition
from milepost.gen.milepost.v1 import (
    admin_service_pb2,
    operation_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)
from milepost.gen.milepost.v1 import operation_pb2 as pb

CALL_SECONDS = 60.0
"""For a call that hangs, not for a busy machine."""
BROKEN = pb.OperationError(code="BROKEN", message="it broke")
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC, as its proto describes it."""

    name: str
    """Service and method, such as `milepost.v1.OperationService/GetOperation`."""
    request: type[Message]
    response: type[Message]
    shape: str
    """`unary_unary`, `unary_stream`, `stream_unary` or `stream_stream`."""
    is_alternative: bool = False
    """True if its requests ask for the alternative transition of the policy table."""

    @property
    def takes_id(self) -> bool:
        """True if the request names an operation, other than as a filter."""
        if self.is_google:
            return self.method != "GoogleListOperations"
        field = self.request.DESCRIPTOR.fields_by_name.get("operation_id")
        return field is not None and not field.has_presence

    @property
    def is_google(self) -> bool:
        """True if it is of google.longrunning, which calls an operation by its name."""
        return self.name.startswith("google.")

    @property
    def id_field(self) -> str:
        """The field of the request that names an operation."""
        return "name" if self.is_google else "operation_id"

    @property
    def permission(self) -> Permission:
        """The row of the RPC in the policy table."""
        use_case = METHODS[self.name].use_case
        assert use_case is not None
        return POLICY[use_case]

    @property
    def transition(self) -> Transition | None:
        """The transition that its requests ask for; None for a read."""
        permission = self.permission
        return permission.alternative if self.is_alternative else permission.transition

    @property
    def label(self) -> str:
        """The name of the method and of its alternative in reports."""
        return f"{self.method}-{self.transition}" if self.is_alternative else self.method

    @property
    def method(self) -> str:
        """The name of the method without its service, with a prefix if it is of Google's."""
        return ("Google" if self.is_google else "") + self.name.partition("/")[2]

    def about(self, operation_id: str, **fields: Any) -> Message:
        """Return a complete request about one operation."""
        known = self.request.DESCRIPTOR.fields_by_name
        if self.is_alternative:
            fields = {**ALTERNATIVES[self.method], **fields}
        if "errors" in known:
            fields = {"errors": [BROKEN], **fields}
        if "timeout" in known:  # a wait that is answered at once
            fields = {"timeout": duration_pb2.Duration(), **fields}
        named = google_name(operation_id) if self.is_google else operation_id
        return self.request(**{self.id_field: named}, **fields)

    def on(self, channel: Any) -> Any:
        """Return the callable of the RPC on `channel`, of grpc or of grpc.aio."""
        make = getattr(channel, self.shape)
        return make(f"/{self.name}", self.request.SerializeToString, self.response.FromString)

    def send(self, channel: grpc.Channel, request: Message, metadata: Metadata) -> Any:
        """Return the answer; for a stream the first one, or None if it is empty."""
        given = iter([request]) if self.shape.startswith("stream") else request
        answer = self.on(channel)(given, metadata=metadata, timeout=CALL_SECONDS)
        return next(answer, None) if self.shape.endswith("stream") else answer


def _shape(method: Any) -> str:
    sides = (method.client_streaming, method.server_streaming)
    return "_".join("stream" if streaming else "unary" for streaming in sides)


RPCS = tuple(
    Rpc(
        name=f"{service.full_name}/{method.name}",
        request=GetMessageClass(method.input_type),
        response=GetMessageClass(method.output_type),
        shape=_shape(method),
    )
    for file in (
        operation_service_pb2,
        worker_service_pb2,
        webhook_service_pb2,
        admin_service_pb2,
        operations_proto_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
"""Every RPC of the protos of Milepost, and those of google.longrunning."""
ABOUT_ONE = tuple(rpc for rpc in RPCS if rpc.takes_id and rpc.shape != "stream_stream")
"""Unary RPCs and watches about one operation, which their request names."""
BY_METHOD = {rpc.method: rpc for rpc in RPCS}
ALTERNATIVES: dict[str, dict[str, Any]] = {
    "FailOperation": {"retryable": True},
    "CancelOperation": {"grace": duration_pb2.Duration(seconds=60)},
}
"""Fields that ask an RPC for its alternative transition."""
ALTERNATIVE_RPCS = tuple(
    dataclasses.replace(BY_METHOD[method], is_alternative=True) for method in ALTERNATIVES
)
