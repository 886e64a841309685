"""An empty aiohttp handler: the minimum cost of a call over HTTP.

It runs on the event loop of the service, reads the request and answers with the JSON of an
operation of the same size. A watch gets that as its only event, and stays open.

    python -m tests.bench.empty_http PORT
"""

import argparse
import asyncio

import uvloop
from aiohttp import web

from milepost.web.json_messages import to_json
from tests.bench.messages import sample_operation


def main() -> None:
    """Serve until the process ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    port: int = parser.parse_args().port
    answer = to_json(sample_operation())

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=answer, content_type="application/json")

    async def watch(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"id: 1\nevent: operation\ndata: %s\n\n" % answer)
        await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_route("GET", "/v1/operations/{operation_id:[^/:]*}:watch", watch)
    app.router.add_route("GET", "/v1/operations/{operation_id:[^/:]*}", handle)
    app.router.add_route("POST", "/v1/operations/{operation_id:[^/:]*}:updateProgress", handle)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=loop)


if __name__ == "__main__":
    main()
