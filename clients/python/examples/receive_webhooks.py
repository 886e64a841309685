"""A receiver of webhooks. MILEPOST_WEBHOOK_SECRET holds what `milepost webhooks secret` shows."""

import os
import sys

from aiohttp import web

from milepost_client.webhooks import NotVerified, verify


async def receive(request: web.Request) -> web.Response:
    """Take a webhook, if it is one. Its id is the same when it is sent again."""
    try:
        event = verify(await request.read(), request.headers, os.environ["MILEPOST_WEBHOOK_SECRET"])
    except NotVerified as problem:
        return web.Response(status=401, text=str(problem))
    sys.stdout.write(f"{request.headers['webhook-id']} {event['type']}\n")
    sys.stdout.flush()
    return web.Response(status=204)


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/hook", receive)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
