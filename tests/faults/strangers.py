"""Calls of a stranger over each protocol, as direct as possible: their times are compared."""

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import grpc
from grpc import StatusCode

from milepost.domain.operation import new_operation_id
from tests.e2e.client import Client
from tests.e2e.http.protocol import HTTP_RPCS, url_of
from tests.e2e.rpcs import CALL_SECONDS, RPCS, Rpc
from tests.e2e.service import Service

Ask = Callable[[str], StatusCode]
"""Calls about an operation, and returns the code of the answer."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CODES: Final = {
    HTTPStatus.NOT_FOUND: StatusCode.NOT_FOUND,
    HTTPStatus.SERVICE_UNAVAILABLE: StatusCode.UNAVAILABLE,
}


@contextmanager
def over_grpc(_service: Service, stranger: Client, rpc: Rpc) -> Iterator[Ask]:
    """Call over gRPC; the messages are plain bytes."""
    call: Any = stranger.channel.unary_unary(f"/{rpc.name}")

    def ask(operation_id: str) -> StatusCode:
        request = rpc.about(operation_id).SerializeToString()
        try:
            call(request, metadata=stranger.metadata, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            code: StatusCode = error.code()
            return code
        return StatusCode.OK

    yield ask


@contextmanager
def over_http(service: Service, stranger: Client, rpc: Rpc) -> Iterator[Ask]:
    """Call over HTTP, on one connection that is kept alive."""
    host, _, port = service.http_address.rpartition(":")
    some_id = new_operation_id()
    request = _request(stranger, rpc, some_id)
    with socket.create_connection((host, int(port)), timeout=CALL_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask(operation_id: str) -> StatusCode:
            connection.sendall(request.replace(some_id.encode(), operation_id.encode()))
            response = _response(connection)
            status = HTTPStatus(int(response.split(maxsplit=2)[1]))
            assert (status == HTTPStatus.NOT_FOUND) == (b"OPERATION_NOT_FOUND" in response)
            return _CODES.get(status, StatusCode.UNKNOWN)

        yield ask


def _request(stranger: Client, rpc: Rpc, operation_id: str) -> bytes:
    verb, place, body = url_of(rpc, rpc.about(operation_id))
    assert not body, "only requests whose fields stand in the path"
    lines = (
        f"{verb} {place} HTTP/1.1",
        "Host: milepost",
        f"Authorization: Bearer {stranger.key}",
        "Content-Length: 0",
    )
    return "\r\n".join((*lines, "", "")).encode()


def _response(connection: socket.socket) -> bytes:
    """Return a whole response with a length."""
    data = b""
    while True:
        more = connection.recv(1 << 16)
        assert more, "the service closed the connection"
        data += more
        head, found, body = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if found else None
        if length is not None and len(body) >= int(length[1]):
            return data


Protocol = Callable[[Service, Client, Rpc], Any]
_MEASURED: Final[Mapping[Protocol, tuple[str, ...]]] = {
    over_grpc: ("GetOperation", "UpdateProgress", "GoogleGetOperation"),
    over_http: ("GetOperation", "UpdateProgress"),
}
"""A read of each API, and a change of each protocol."""
CALLS: Final = [
    (protocol, rpc)
    for protocol, methods in _MEASURED.items()
    for rpc in (HTTP_RPCS if protocol is over_http else RPCS)
    if rpc.method in methods
]
"""The measured calls, of google.longrunning too."""
