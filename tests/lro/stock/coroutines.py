"""The asyncio client of google-api-core."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.api_core import exceptions, operation_async, operations_v1, retry_async
from google.api_core.future import async_future
from google.longrunning import operations_proto_pb2
from google.protobuf import json_format, struct_pb2

from milepost_client.gen.milepost.v1 import operation_pb2
from tests.lro.stock.blocking import failure, show, state


class Headers(grpc.aio.UnaryUnaryClientInterceptor):
    """Interceptor that adds the same headers to every call."""

    def __init__(self, *headers: tuple[str, str]) -> None:
        self._headers = headers

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Add the headers to the metadata of one call."""
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *self._headers)
        return await continuation(details._replace(metadata=metadata), request)


def operations_client(address: str, key: str, hold_s: int) -> operations_v1.OperationsAsyncClient:
    """Return the client of the service at an address."""
    headers = Headers(("authorization", f"Bearer {key}"), ("prefer", f"wait={hold_s}"))
    channel = grpc.aio.insecure_channel(address, interceptors=[headers])
    return operations_v1.OperationsAsyncClient(channel)


def may_poll_again(error: Exception) -> bool:
    """Return True for an error after which the future polls on; by default UNAVAILABLE ends it."""
    unavailable = isinstance(error, exceptions.ServiceUnavailable)
    return unavailable or async_future.RETRY_PREDICATE(error)


def future_of(client: operations_v1.OperationsAsyncClient, name: str) -> Any:
    """Return the future of an operation, whose worker packs a Struct."""
    return operation_async.from_gapic(
        operations_proto_pb2.Operation(name=name),
        client,
        struct_pb2.Struct,
        metadata_type=operation_pb2.OperationMetadata,
        retry=retry_async.AsyncRetry(predicate=may_poll_again, maximum=20, timeout=None),
    )


async def wait(client: operations_v1.OperationsAsyncClient, names: str, *, cancel: bool) -> None:
    """Follow each operation to its end, in turn; cancel it on the way if that is asked for."""
    for name in names.split(","):
        future = future_of(client, name)
        if not await future.done():
            show(state(future))
        if cancel:
            show({"cancel": await future.cancel()})
        value = await future.result(timeout=240)
        show({"value": json_format.MessageToDict(value), **state(future)})


async def delete(client: operations_v1.OperationsAsyncClient, name: str) -> None:
    """Delete an operation that has ended."""
    show({"deleted": await client.delete_operation(name) is None})


async def show_ended(client: operations_v1.OperationsAsyncClient) -> None:
    """List the operations that have ended, page by page."""
    pager = await client.list_operations("operations", "done=true")
    show({"names": [found.name async for found in pager]})


async def main(address: str, verb: str, name: str = "") -> None:
    """Do what the verb says."""
    hold_s = int(os.environ["HOLD_S"])
    client = operations_client(address, os.environ["MILEPOST_API_KEY"], hold_s)
    verbs: dict[str, Callable[[], Awaitable[None]]] = {
        "wait": lambda: wait(client, name, cancel=False),
        "cancel": lambda: wait(client, name, cancel=True),
        "delete": lambda: delete(client, name),
        "list": lambda: show_ended(client),
    }
    try:
        await verbs[verb]()
    except (exceptions.GoogleAPICallError, TypeError) as error:
        show(failure(error))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
