"""Pages of a list: calls that follow each other, as fast as the rate limit allows."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final, TypeVar

import grpc

from milepost_client.calls import Calls
from milepost_client.errors import RateLimited
from milepost_client.gen.milepost.v1 import operation_service_pb2 as pb
from milepost_client.gen.milepost.v1 import webhook_service_pb2 as webhook_pb
from milepost_client.pace import Backoff

MAX_LIMITED_S: Final = 300.0
"""How long a page after the first one is asked for while the rate limit refuses it."""

Request = TypeVar(
    "Request",
    pb.ListOperationsRequest,
    pb.ListEventsRequest,
    webhook_pb.ListDeliveriesRequest,
)
Page = TypeVar(
    "Page",
    pb.ListOperationsResponse,
    pb.ListEventsResponse,
    webhook_pb.ListDeliveriesResponse,
)


async def pages(
    calls: Calls, method: grpc.aio.UnaryUnaryMultiCallable[Request, Page], request: Request
) -> AsyncIterator[Page]:
    """Yield all pages of the list.

    A rate limit refuses the first page, because its rate is up to the user. The client asks
    for the other pages by itself, so a limit only delays them.

    Args:
        calls: The calls to the service.
        method: The method that lists.
        request: The request of the first page. Its `page_token` is set to that of each page.
    """
    page = await calls.send(method, request)
    yield page
    while page.next_page_token:
        request.page_token = page.next_page_token
        page = await _next_page(calls, method, request)
        yield page


async def _next_page(
    calls: Calls, method: grpc.aio.UnaryUnaryMultiCallable[Request, Page], request: Request
) -> Page:
    """Return the page once the rate limit allows it."""
    clock = asyncio.get_running_loop().time
    end = clock() + MAX_LIMITED_S
    backoff = Backoff()
    while True:
        try:
            return await calls.send(method, request)
        except RateLimited as limit:
            pause_s = backoff.pause_s(limit)
            if clock() + pause_s >= end:
                raise
        await asyncio.sleep(pause_s)
