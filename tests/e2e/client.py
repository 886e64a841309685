"""Who calls the service: everything that the protos allow, also what no client would send."""

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import Message

from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.rpcs import BROKEN, BY_METHOD, CALL_SECONDS, Metadata, Rpc

FUNCTION = "video.transcode"


class Client:
    """Who calls with one API key."""

    def __init__(
        self, channel: grpc.Channel, subject: str, roles: frozenset[str], key: str
    ) -> None:
        self.channel = channel
        self.subject = subject
        self.roles = roles
        self.key = key
        self.metadata: Metadata = (("authorization", f"Bearer {key}"),)

    def send(self, rpc: Rpc, request: Message) -> Any:
        """The answer of an RPC, whichever it is."""
        return rpc.send(self.channel, request, self.metadata)

    def call(self, method: str, **fields: Any) -> Any:
        """The answer of the RPC with this name to a request with these fields."""
        rpc = BY_METHOD[method]
        return self.send(rpc, rpc.request(**fields))

    def future(self, method: str, **fields: Any) -> Any:
        """The answer to come of a unary RPC: many can run at once."""
        rpc = BY_METHOD[method]
        call = rpc.on(self.channel)
        return call.future(rpc.request(**fields), metadata=self.metadata, timeout=CALL_SECONDS)

    def ask(self, rpc: Rpc, operation_id: str) -> Any:
        """The answer to come of an RPC to a complete request, about one operation or none."""
        request = rpc.about(operation_id) if rpc.takes_id else rpc.request()
        if rpc.method == "CreateOperation":
            request = rpc.request(function=FUNCTION)
        if rpc.method == "ClaimOperations":
            request = rpc.request(functions=[FUNCTION])
        call = rpc.on(self.channel)
        begin = call.future if rpc.shape == "unary_unary" else call
        return begin(request, metadata=self.metadata, timeout=CALL_SECONDS)

    def begin(self, channel: grpc.aio.Channel, method: str, **fields: Any) -> Any:
        """The call of a unary RPC over a channel of grpc.aio, to be awaited or cancelled."""
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
        """A watch over a channel of grpc or grpc.aio, to be iterated over and cancelled."""
        rpc = BY_METHOD["WatchOperation"]
        request = rpc.request(operation_id=operation_id, after_revision=after_revision)
        return rpc.on(channel)(request, metadata=self.metadata, timeout=seconds)

    def create(self, **fields: Any) -> pb.Operation:
        """A new operation."""
        operation: pb.Operation = self.call(
            "CreateOperation", **{"function": FUNCTION, **fields}
        ).operation
        return operation

    def get(self, operation_id: str) -> pb.Operation:
        """The operation as it stands."""
        operation: pb.Operation = self.call("GetOperation", operation_id=operation_id).operation
        return operation

    def transition(self, method: str, operation_id: str, **fields: Any) -> pb.Operation:
        """The operation as the RPC with this name leaves it."""
        operation: pb.Operation = self.call(method, operation_id=operation_id, **fields).operation
        return operation

    def create_in(self, status: str, **fields: Any) -> pb.Operation:
        """A new operation that has come to `status`, started on its way to the end of it."""
        operation = self.create(**fields)
        if status != "PENDING":
            operation = self.transition("StartOperation", operation.id)
        if status in LAST_MOVES:
            method, more = LAST_MOVES[status]
            operation = self.transition(method, operation.id, **more)
        return operation


LAST_MOVES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "COMPLETED": ("CompleteOperation", {}),
    "FAILED": ("FailOperation", {"errors": [BROKEN]}),
    "CANCELLED": ("CancelOperation", {}),
}
