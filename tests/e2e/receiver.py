"""A receiver of webhooks on the loopback, that answers as it is told and keeps what it got.

with Receiver() as receiver:
    receiver.answer("/hook", 500, 200)
    alice.create(callback_url=receiver.url("/hook"))
    first, second = receiver.wait_for("/hook", 2)
"""

import asyncio
import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from standardwebhooks import Webhook

from tests.machine import free_ports
from tests.waiting import eventually

PATIENCE_SECONDS = 20.0
Answer = int | web.Response | Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Hook:
    """One request, as it came."""

    headers: Mapping[str, str]
    body: bytes
    time: float = field(default_factory=time.time)

    @property
    def id(self) -> str:
        """The webhook-id."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    def verify(self, secret: str) -> Any:
        """The body, verified by the published library; an exception if its signature is bad."""
        return Webhook(secret).verify(self.body, dict(self.headers))


class Receiver:
    """It runs in a thread, until left."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self._got: dict[str, list[Hook]] = defaultdict(list)
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        """It listens."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(5)
        return self

    def __exit__(self, *_error: object) -> None:
        """It is gone."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def url(self, path: str) -> str:
        """Where a webhook is to be sent."""
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, path: str, *answers: Answer) -> None:
        """What requests to `path` are answered, one after the other, and 200 after these."""
        self._answers[path].extend(answers)

    def got(self, path: str) -> list[Hook]:
        """What came so far."""
        return list(self._got[path])

    def wait_for(self, path: str, count: int = 1) -> list[Hook]:
        """What came, as soon as it is `count` requests."""
        eventually(
            lambda: len(self.got(path)) >= count,
            within=PATIENCE_SECONDS,
            what=f"{count} webhooks at {path}",
        )
        return self.got(path)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        hook = Hook(dict(request.headers), await request.read())
        self._got[request.path].append(hook)
        waiting = self._answers[request.path]
        answer = waiting.popleft() if waiting else 200
        if isinstance(answer, int):
            return web.Response(status=answer)
        if isinstance(answer, web.Response):
            return answer
        return await answer(request)


async def stall(_request: web.Request) -> web.StreamResponse:
    """No answer ever comes."""
    await asyncio.Event().wait()
    raise AssertionError


async def reset(request: web.Request) -> web.StreamResponse:
    """The connection breaks."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
