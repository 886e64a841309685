"""The receiver of webhooks: it verifies, records, and fails by chance."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from tests.faults.proof.history import History, Received

FAILING: Final = 0.15
"""Share of the requests that are answered with 500."""
HANGING: Final = 0.03
"""Share of the requests that are answered after the sender has given up."""
HANG_S: Final = 1.0
OK: Final = 200
ERROR: Final = 500


class Receiver:
    """An HTTP server that takes the webhooks of all owners."""

    def __init__(self, history: History, dice: random.Random, hanging: float) -> None:
        self.secrets: dict[str, str] = {}
        """The signing secret of each owner."""
        self.port = 0
        self._history = history
        self._dice = dice
        self._hanging = hanging

    def url(self, owner: str) -> str:
        """Return the callback URL of an owner."""
        return f"http://127.0.0.1:{self.port}/hooks/{owner}"

    async def receive(self, request: web.Request) -> web.Response:
        """Take one webhook."""
        body = await request.read()
        is_signed = self._is_signed(request.match_info["owner"], body, request.headers)
        lot = self._dice.random()
        answer = ERROR if lot < FAILING + self._hanging else OK
        content = json.loads(body)
        data = content["data"]
        self._history.webhooks.append(
            Received(
                webhook_id=request.headers["webhook-id"],
                operation_id=data["operation_id"],
                revision=data["revision"],
                type=content["type"],
                status=data["status"],
                answer=answer,
                is_signed=is_signed,
            )
        )
        if lot < self._hanging:
            await asyncio.sleep(HANG_S)
        return web.Response(status=answer)

    def _is_signed(self, owner: str, body: bytes, headers: Mapping[str, str]) -> bool:
        try:
            Webhook(self.secrets[owner]).verify(body, {k.lower(): v for k, v in headers.items()})
        except WebhookVerificationError:
            return False
        return True


@asynccontextmanager
async def receiving(
    history: History, dice: random.Random, hanging: float
) -> AsyncIterator[Receiver]:
    """Run a receiver on a free port of the loopback."""
    receiver = Receiver(history, dice, hanging)
    app = web.Application()
    app.router.add_post("/hooks/{owner}", receiver.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()
