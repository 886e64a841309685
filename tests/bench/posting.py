"""POSTs to receivers and nothing else: what the dispatcher of webhooks is compared with.

It waits for a line of JSON on its port, makes that many POSTs, and answers when they are done. On
the library and the event loop of the service; with a connection for each POST, as webhooks have
one, or with connections that are kept.

    python -m tests.bench.posting PORT
"""

import asyncio
import json
import sys
from itertools import count

import uvloop
from aiohttp import ClientSession, TCPConnector

HEADERS = {
    "webhook-id": f"msg_{'0' * 32}",
    "webhook-timestamp": "1800000000",
    "webhook-signature": f"v1,{'A' * 43}=",
    "Content-Type": "application/json",
    "User-Agent": "Milepost-Webhook/1",
    "X-Operation-Id": f"op_{'0' * 24}",
    "traceparent": f"00-{'0' * 32}-{'0' * 16}-00",
}
BODY = b"x" * 350
"""About as much as a webhook says of an operation without a result."""


async def post(urls: list[str], posts: int, at_once: int, *, kept: bool) -> None:
    """Make so many POSTs, to the URLs in turn."""
    numbers = count()
    connector = TCPConnector(limit=0, force_close=not kept)
    async with ClientSession(connector=connector) as session:

        async def row() -> None:
            while (number := next(numbers)) < posts:
                url = urls[number % len(urls)]
                async with session.post(url, data=BODY, headers=HEADERS) as response:
                    await response.read()

        await asyncio.gather(*(row() for _ in range(at_once)))


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do what the line asks for."""
    if line := await reader.readline():
        await post(**json.loads(line))
        writer.write(b"done\n")
    writer.close()


async def serve(port: int) -> None:
    """Answer until the process is ended."""
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
