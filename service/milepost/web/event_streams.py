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

from milepost.api.errors import log_refusal, refusal_of
from milepost.domain.errors import MilepostError
from milepost.web.json_messages import to_json
from milepost.web.problems import problem_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from milepost.web.http_call import HttpCall

FIRST_EVENT_S: Final = 0.5
"""Time for a refusal, or for the end of a watch that has nothing to send, before the headers go."""
KEEP_ALIVE: Final = b": keep-alive\n\n"


async def send_events(
    watch: AsyncGenerator[Any, None], call: HttpCall, message: Any
) -> web.StreamResponse:
    """Send what a watch yields, until it ends.

    A refusal after the headers is an event of the type `error`, with the problem details.
    """
    async with contextlib.aclosing(watch):
        first = asyncio.ensure_future(anext(watch, None))
        try:
            await asyncio.wait({first}, timeout=FIRST_EVENT_S)
            if first.done() and first.result() is None:
                return web.Response(status=HTTPStatus.NO_CONTENT)
            return await _stream(watch, first, call, message)
        finally:
            first.cancel()


async def _stream(
    watch: AsyncGenerator[Any, None], first: asyncio.Future[Any], call: HttpCall, message: Any
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    response.headers["X-Accel-Buffering"] = "no"  # nginx passes every event on at once
    await response.prepare(call.request)
    try:
        item = await first
        while item is not None:
            await response.write(_event(item))
            del item  # a quiet stream keeps no operation in memory
            item = await anext(watch, None)
    except MilepostError as error:
        log_refusal(error, call, message)
        problem = problem_bytes(refusal_of(error, call.method))
        await response.write(b"event: error\ndata: %s\n\n" % problem)
    return response


def _event(item: Any) -> bytes:
    if not item.HasField("operation"):
        return KEEP_ALIVE
    operation = item.operation
    return b"id: %d\nevent: operation\ndata: %s\n\n" % (operation.revision, to_json(operation))
