"""The handlers of the methods of a service, from its description."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

    from milepost.api.services import Service


def add_service(service: Service, server: Any) -> None:
    """Add a service to a server, as generated code does."""
    handlers = {
        method.name: _handler(method, getattr(service.servicer, method.name))
        for method in service.descriptor.methods
    }
    server.add_registered_method_handlers(service.descriptor.full_name, handlers)


def _handler(method: MethodDescriptor, behaviour: Any) -> grpc.RpcMethodHandler[Any, Any]:
    sides = (method.client_streaming, method.server_streaming)
    shape = "_".join("stream" if streams else "unary" for streams in sides)
    handler: grpc.RpcMethodHandler[Any, Any] = getattr(grpc, f"{shape}_rpc_method_handler")(
        behaviour,
        GetMessageClass(method.input_type).FromString,
        GetMessageClass(method.output_type).SerializeToString,
    )
    return handler
