"""A client of the service that can send everything the protos allow, valid or not."""

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import Message

from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.rpcs import BROKEN, BY_METHOD, CALL_SECONDS, Metadata, Rpc

FUNCTION = "video.transcode"


class Client:
    """A client with one API key."""

    def __init__(
        self, channel: grpc.Channel, subject: str, roles: frozenset[str], key: str
    ) -> None:
        self.channel = channel
        self.subject = subject
        self.roles = roles
        self.key = key
        self.metadata: Metadata = (("authorization", f"Bearer {key}"),)

    def send(self, rpc: Rpc, request: Message) -> Any:
        """Return the answer of an RPC; the first one of a stream."""
        return rpc.send(self.channel, request, self.metadata)

    def call(self, method: str, **fields: Any) -> Any:
        """Return the answer of the RPC with this name to a request with these fields."""
        rpc = BY_METHOD[method]
        return self.send(rpc, rpc.request(**fields))

    def future(self, method: str, **fields: Any) -> Any:
        """Start a unary RPC and return its future; many can run at once."""
        rpc = BY_METHOD[method]
        call = rpc.on(self.channel)
        return call.future(rpc.request(**fields), metadata=self.metadata, timeout=CALL_SECONDS)

    def ask(self, rpc: Rpc, operation_id: str) -> Any:
        """Start an RPC with a complete request about one operation and return its future."""
        request = rpc.about(operation_id) if rpc.takes_id else rpc.request()
        if rpc.method == "CreateOperation":
            request = rpc.request(function=FUNCTION)
        if rpc.method == "ClaimOperations":
            request = rpc.request(functions=[FUNCTION])
        call = rpc.on(self.channel)
        begin = call.future if rpc.shape == "unary_unary" else call
        return begin(request, metadata=self.metadata, timeout=CALL_SECONDS)

    def begin(self, channel: grpc.aio.Channel, method: str, **fields: Any) -> Any:
        """Start a unary RPC over a channel of grpc.aio; the call can be awaited or cancelled."""
        rpc = BY_METHOD[method]
        request = rpc.request(**fields)
        return rpc.on(channel)(request, metadata=self.metadata, timeout=CALL_SECONDS)

    def watch(
        self,
        channel: Any,
        operation_id: str,
        after_revision: int = 0,
        *,
        seconds: float = CALL_SECONDS,
    ) -> Any:
        """Start a watch over a channel of grpc or grpc.aio; iterate over it, or cancel it."""
        rpc = BY_METHOD["WatchOperation"]
        request = rpc.request(operation_id=operation_id, after_revision=after_revision)
        return rpc.on(channel)(request, metadata=self.metadata, timeout=seconds)

    def create(self, **fields: Any) -> pb.Operation:
        """Create an operation."""
        operation: pb.Operation = self.call(
            "CreateOperation", **{"function": FUNCTION, **fields}
        ).operation
        return operation

    def get(self, operation_id: str) -> pb.Operation:
        """Return the operation as it is stored now."""
        operation: pb.Operation = self.call("GetOperation", operation_id=operation_id).operation
        return operation

    def transition(self, method: str, operation_id: str, **fields: Any) -> pb.Operation:
        """Call the transition with this name and return the changed operation."""
        operation: pb.Operation = self.call(method, operation_id=operation_id, **fields).operation
        return operation

    def create_in(self, status: str, **fields: Any) -> pb.Operation:
        """Create an operation and lead it to `status`, over a start where that is needed."""
        operation = self.create(**fields)
        if status != "PENDING":
            operation = self.transition("StartOperation", operation.id)
        if status in TERMINAL_TRANSITIONS:
            method, more = TERMINAL_TRANSITIONS[status]
            operation = self.transition(method, operation.id, **more)
        return operation


TERMINAL_TRANSITIONS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "COMPLETED": ("CompleteOperation", {}),
    "FAILED": ("FailOperation", {"errors": [BROKEN]}),
    "CANCELLED": ("CancelOperation", {}),
}
