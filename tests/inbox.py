"""A receiver of webhooks that records them by path and gives configured answers.

with Inbox() as inbox:
    inbox.answer("/hook", 500, 200)
    alice.create(callback_url=inbox.url("/hook"))
    first, second = inbox.wait_for("/hook", 2)
"""

import asyncio
import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.parser import Parser
from typing import Any, Self
from urllib.parse import urlsplit

from standardwebhooks import Webhook

from tests.receivers import Behaviour, Receiver, answering, reply
from tests.waiting import eventually

MAX_WAIT_S = 20.0
Answer = int | bytes | Behaviour


@dataclass(frozen=True, slots=True)
class Hook:
    """One request as received."""

    target: str
    """Path and query as they were sent."""
    headers: Mapping[str, str]
    body: bytes
    time: float = field(default_factory=time.time)

    @classmethod
    def read(cls, request: bytes) -> Self:
        """Parse a request."""
        head, _, body = request.partition(b"\r\n\r\n")
        first, _, lines = head.decode().partition("\r\n")
        return cls(first.split()[1], dict(Parser().parsestr(lines).items()), body)

    @property
    def path(self) -> str:
        """The path of the target."""
        return urlsplit(self.target).path

    @property
    def id(self) -> str:
        """The webhook-id."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    def verify(self, secret: str) -> Any:
        """Return the body, verified by the published library; raise if its signature is bad."""
        return Webhook(secret).verify(self.body, dict(self.headers))


class Inbox:
    """A receiver that runs in a thread inside its `with` block."""

    def __init__(self) -> None:
        self._receiver = Receiver(self._behave)
        self._got: dict[str, list[Hook]] = defaultdict(list)
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        """Start to listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._receiver.start(), self._loop).result(5)
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop listening."""
        asyncio.run_coroutine_threadsafe(self._receiver.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._receiver.port

    def url(self, path: str) -> str:
        """Return the callback URL of `path`."""
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, path: str, *answers: Answer) -> None:
        """Answer requests to `path` with these statuses in turn, and with 200 after them."""
        self._answers[path].extend(answers)

    def got(self, path: str) -> list[Hook]:
        """Return the requests received so far."""
        return list(self._got[path])

    def targets(self, webhook_id: str) -> set[str]:
        """Return the targets of the requests with this id."""
        hooks = [hook for found in self._got.values() for hook in found]
        return {hook.target for hook in hooks if hook.id == webhook_id}

    def wait_for(self, path: str, count: int = 1) -> list[Hook]:
        """Return the requests as soon as there are `count` of them."""
        eventually(
            lambda: len(self.got(path)) >= count,
            within=MAX_WAIT_S,
            what=f"{count} webhooks at {path}",
        )
        return self.got(path)

    async def _behave(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hook = Hook.read(self._receiver.requests[-1])  # nothing has run since it came
        self._got[hook.path].append(hook)
        waiting = self._answers[hook.path]
        answer = waiting.popleft() if waiting else 200
        if isinstance(answer, int):
            answer = reply(answer)
        behave = answering(answer) if isinstance(answer, bytes) else answer
        await behave(reader, writer)
