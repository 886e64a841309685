"""Polls of the Python futures: their metadata, and what ends them."""

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.api_core import exceptions, operation, operation_async, operations_v1
from google.longrunning import operations_proto_pb2
from google.protobuf import struct_pb2

from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.certificates import SERVER, Authority
from tests.e2e.lro.test_stock_clients import named
from tests.e2e.rpcs import BY_METHOD
from tests.e2e.service import Service
from tests.lro.stock import blocking, coroutines
from tests.lro.stock.blocking import Headers

HOLD_S = 2
POLLS = 400
"""At the pauses of a future, the polls of two hours."""


class Measured(grpc.UnaryUnaryClientInterceptor):
    """Interceptor that counts the headers of every call."""

    def __init__(self) -> None:
        self.headers: list[int] = []

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Count the headers of one call."""
        self.headers.append(len(details.metadata or ()))
        return continuation(details, request)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, bytes]]:
    """A service with a certificate, and the certificate of its authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    pair = authority.certify(*SERVER)
    with Service(
        f"sqlite:///{folder}/tls.db",
        folder,
        tls_cert_file=str(pair.certificate),
        tls_key_file=str(pair.key),
    ) as service:
        yield service, authority.file.read_bytes()


@pytest.fixture
def secured(tls: tuple[Service, bytes]) -> Iterator[grpc.Channel]:
    """A channel to that service, with the key of a caller as call credentials."""
    service, root = tls
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(root),
        grpc.access_token_call_credentials(service.api_key("alice")),
    )
    with grpc.secure_channel(service.address, credentials) as channel:
        yield channel


def polled(channel: grpc.Channel, name: str, **more: Any) -> list[int]:
    """Poll a future often, and return how many headers each poll had."""
    measured = Measured()
    client = operations_v1.OperationsClient(grpc.intercept_channel(channel, measured))
    future = operation.from_gapic(
        operations_proto_pb2.Operation(name=name), client, struct_pb2.Struct, **more
    )
    assert not any(future.done() for _ in range(POLLS))
    return measured.headers


def test_polls_with_an_interceptor(any_service, alice):
    """A future polls without end if an interceptor attaches the key: the metadata stays small."""
    channel = grpc.intercept_channel(any_service.channel, Headers(*alice.metadata))
    headers = polled(channel, named(alice.create()))
    assert headers == [headers[0]] * POLLS


def test_polls_with_call_credentials(secured):
    """A future polls without end if call credentials attach the key."""
    create = BY_METHOD["CreateOperation"]
    created = create.send(secured, create.request(function="video.transcode"), ()).operation
    headers = polled(secured, named(created))
    assert headers == [headers[0]] * POLLS


def test_polls_with_growing_metadata(any_service, alice):
    """A future with a list of metadata adds to it at every poll; the service takes hundreds."""
    headers = polled(any_service.channel, named(alice.create()), grpc_metadata=list(alice.metadata))
    assert headers == list(range(headers[0], headers[0] + POLLS))


def test_held_polls_delay_the_cancel_of_a_future(any_service, alice):
    """A future polls before it cancels, so a held poll delays it; the client's cancel does not."""
    client = blocking.operations_client(any_service.address, alice.key, HOLD_S)
    slow, quick = alice.create(), alice.create()
    start = time.monotonic()
    client.cancel_operation(named(quick))
    assert blocking.future_of(client, named(quick)).cancelled()
    assert blocking.future_of(client, named(slow)).cancel()
    assert time.monotonic() - start > HOLD_S - 0.1
    assert alice.get(slow.id).status == pb.OPERATION_STATUS_CANCELLED


async def test_unavailable_ends_the_asyncio_future_by_default(alice):
    """The asyncio future ends at UNAVAILABLE, unless its `retry` says otherwise."""
    client = coroutines.operations_client("127.0.0.1:1", alice.key, 0)
    named_operation = operations_proto_pb2.Operation(name=named(alice.create()))
    future = operation_async.from_gapic(named_operation, client, struct_pb2.Struct)
    with pytest.raises(exceptions.ServiceUnavailable):
        await future.result(timeout=20)
