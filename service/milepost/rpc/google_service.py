"""The registration of google.longrunning.Operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.longrunning import operations_proto_pb2 as pb
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from milepost.api.google_operations import GoogleOperations


def add_google_operations(servicer: GoogleOperations, server: Any) -> None:
    """Add the service to a server, as generated code does.

    The stubs of `googleapis-common-protos` are too old to register the methods by name.
    """
    service = pb.DESCRIPTOR.services_by_name["Operations"]
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, method.name),
            GetMessageClass(method.input_type).FromString,
            GetMessageClass(method.output_type).SerializeToString,
        )
        for method in service.methods
    }
    server.add_registered_method_handlers(service.full_name, handlers)
