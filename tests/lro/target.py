"""The server under test: its calls, and how operations start and end there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.longrunning import operations_proto_pb2 as lro
from google.protobuf.message_factory import GetMessageClass

CALL_S: Final = 20.0
Headers = Sequence[tuple[str, str]]
_METHODS: Final = lro.DESCRIPTOR.services_by_name["Operations"].methods_by_name


class NotTried(Exception):
    """The target has no way to do what a clause needs."""


class CommandFailed(Exception):
    """The command that starts or ends an operation at the target failed."""


class NotOffered(Exception):
    """The target does not have a method that a server may leave out: any but GetOperation."""


@dataclass(kw_only=True)
class Target:
    """A server of google.longrunning. Its hooks take and return the names of operations."""

    channel: grpc.Channel
    headers: Headers = ()
    parent: str = "operations"
    start: Callable[[], str]
    complete: Callable[[str], object] | None = None
    fail: Callable[[str], object] | None = None
    metadata_types: set[str] = field(default_factory=set)
    """Types of metadata seen so far."""

    def begin(self, method: str, *headers: tuple[str, str], within: float = CALL_S, **fields: Any):
        """Start a call and return its future."""
        described = _METHODS[method]
        request = GetMessageClass(described.input_type)
        call = self.channel.unary_unary(
            f"/google.longrunning.Operations/{method}",
            request.SerializeToString,
            GetMessageClass(described.output_type).FromString,
        )
        return call.future(request(**fields), metadata=(*self.headers, *headers), timeout=within)

    def call(self, method: str, *headers: tuple[str, str], **fields: Any) -> Any:
        """Return the answer of a call."""
        call = self.begin(method, *headers, **fields)
        code_of(method, call)
        return call.result()

    def get(self, name: str) -> lro.Operation:
        """Return an operation."""
        operation: lro.Operation = self.call("GetOperation", name=name)
        self.metadata_types.add(operation.metadata.type_url)
        return operation

    def code(self, method: str, *headers: tuple[str, str], **fields: Any) -> grpc.StatusCode:
        """Return the code of the answer of a call."""
        return code_of(method, self.begin(method, *headers, **fields))

    def completed(self) -> lro.Operation:
        """Return an operation that was completed just now."""
        return self._ended(self.complete)

    def failed(self) -> lro.Operation:
        """Return an operation that failed just now."""
        return self._ended(self.fail)

    def _ended(self, end: Callable[[str], object] | None) -> lro.Operation:
        if end is None:
            raise NotTried
        name = self.start()
        end(name)
        return self.get(name)


def code_of(method: str, call: Any) -> grpc.StatusCode:
    """Return the code of a call, waiting for its end."""
    code: grpc.StatusCode = call.code()
    if code is grpc.StatusCode.UNIMPLEMENTED and method != "GetOperation":
        raise NotOffered
    return code
