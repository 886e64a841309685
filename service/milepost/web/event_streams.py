"""Watches as server-sent events (the HTML standard, section 9.2).

The id of each event is the revision, so a browser that connects again resumes with the header
`Last-Event-ID`. Once it has seen the end, it gets 204, after which it does not connect any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from milepost.web.json_messages import to_json
from milepost.web.problems import problem_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from milepost.api.refusals import Refusal

    Refuse = Callable[[Exception], Refusal]
    """Logs an error, and returns the refusal of the call."""

FIRST_EVENT_S: Final = 0.5
"""Time for a refusal, or for the end of a watch that has nothing to send, before the headers go."""
MAX_WRITE_S: Final = 60.0
"""Time in which a reader must make room for an event."""
KEEP_ALIVE: Final = b": keep-alive\n\n"
CONTENT_TYPE: Final = "text/event-stream"


async def send_events(
    watch: AsyncGenerator[Any, None],
    request: web.Request,
    refuse: Refuse,
    held: AbstractAsyncContextManager[None],
) -> web.StreamResponse:
    """Send what a watch yields, until it ends. `held` is the context of the call, which may end it.

    A refusal after the headers is an event of the type `error`, with the problem details.
    """
    async with contextlib.aclosing(watch), _first_of(watch) as first:
        await asyncio.wait(first, timeout=FIRST_EVENT_S)
        if first[0].done() and first[0].result() is None:
            return web.Response(status=HTTPStatus.NO_CONTENT)
        return await _stream(watch, first, request, refuse, held)


def refused_for_now(response: web.Response, request: web.Request) -> web.Response:
    """Return a stream with an `error` instead of a refusal with Retry-After, if a browser asks.

    An EventSource gives up at every status but 200. After a stream that ends it asks again, once
    the time of `retry` has passed.
    """
    pause = response.headers.get("Retry-After")
    if pause is None or CONTENT_TYPE not in request.headers.get("Accept", ""):
        return response
    stream = web.Response(
        body=b"retry: %d\nevent: error\ndata: %s\n\n" % (1_000 * int(pause), response.body),
        content_type=CONTENT_TYPE,
        headers={"Cache-Control": "no-store"},
    )
    if response.keep_alive is False:
        stream.force_close()
    return stream


@contextlib.asynccontextmanager
async def _first_of(watch: AsyncGenerator[Any, None]) -> AsyncGenerator[list[asyncio.Task[Any]]]:
    """Provide the task that reads the first item; None is the end. It is not left running."""
    first = [asyncio.create_task(_next(watch))]
    try:
        yield first
    finally:
        for task in first:
            task.cancel()
            await asyncio.wait({task})


async def _next(watch: AsyncGenerator[Any, None]) -> Any:
    return await anext(watch, None)


async def _stream(
    watch: AsyncGenerator[Any, None],
    first: list[asyncio.Task[Any]],
    request: web.Request,
    refuse: Refuse,
    held: AbstractAsyncContextManager[None],
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
    )
    response.headers["X-Accel-Buffering"] = "no"  # nginx passes every event on at once
    try:
        await response.prepare(request)
        await _write_all(watch, first, response, refuse, held)
    except (ConnectionError, _Unread):  # the caller has gone, or does not read
        if request.transport is not None:
            request.transport.abort()
    return response


async def _write_all(
    watch: AsyncGenerator[Any, None],
    first: list[asyncio.Task[Any]],
    response: web.StreamResponse,
    refuse: Refuse,
    held: AbstractAsyncContextManager[None],
) -> None:
    try:
        async with held:
            item = await first[0]
            first.clear()  # a quiet stream keeps no operation in memory
            while item is not None:
                await _write(response, _event(item))
                del item
                item = await anext(watch, None)
    except (ConnectionError, _Unread):
        raise
    except Exception as error:  # noqa: BLE001 - the headers have gone, so it is one more event
        await _write(response, b"event: error\ndata: %s\n\n" % problem_bytes(refuse(error)))


async def _write(response: web.StreamResponse, event: bytes) -> None:
    try:
        async with asyncio.timeout(MAX_WRITE_S):
            await response.write(event)
    except TimeoutError:
        raise _Unread from None


class _Unread(Exception):
    """The caller does not read."""


def _event(item: Any) -> bytes:
    if not item.HasField("operation"):
        return KEEP_ALIVE
    operation = item.operation
    return b"id: %d\nevent: operation\ndata: %s\n\n" % (operation.revision, to_json(operation))
