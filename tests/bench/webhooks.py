"""The dispatcher of webhooks beside a loop of POSTs, to the same receiver.

The service runs as it comes: 64 webhooks at once, 8 to a host. So the receiver is eight hosts.
Times are those of the receiver, from the first POST to the last.
"""

import http.client
import json
import socket
import sys
import time
from contextlib import ExitStack
from functools import partial
from math import ceil
from pathlib import Path

import sqlalchemy as sa

from milepost.webhooks.master_keys import new_key
from tests.bench import plan, servers
from tests.bench.cores import LOAD_CORE
from tests.bench.jobs import Tally
from tests.bench.rounds import Block, Cell, Reading
from tests.machine import free_port
from tests.outbox import count_by_status, insert_due

HOSTS = 8
AT_ONCE = 64
PER_SECOND = 1_500
"""How many webhooks a measurement of a second sends."""
FEWEST = 2 * AT_ONCE
PATIENCE_SECONDS = 30.0


class Webhooks:
    """The receiver, the loop, and the service, which run until the stack is closed."""

    def __init__(self, stack: ExitStack, folder: Path, database_url: str) -> None:
        self._ports = [free_port() for _ in range(HOSTS)]
        self._urls = [f"http://127.0.0.1:{port}/hook" for port in self._ports]
        command = [sys.executable, "-m", "tests.bench.receiver", *map(str, self._ports)]
        receiver = servers.Server(
            command, self._ports[0], folder / "receiver.log", {}, core=LOAD_CORE
        )
        self._posting = servers.start_module("tests.bench.posting", folder / "posting.log")
        settings = {
            "MILEPOST_WEBHOOK_ALLOW_HTTP": "true",
            "MILEPOST_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1/32",
            "MILEPOST_WEBHOOK_ALLOWED_PORTS": ",".join(map(str, self._ports)),
            "MILEPOST_WEBHOOK_KEYS": new_key(),
        }
        self._service = servers.start_service(
            database_url, folder / "service-webhooks.log", settings
        )
        for server in (receiver, self._posting, self._service):
            stack.enter_context(server).wait_until_listening()
        self._engine = sa.create_engine(database_url)
        stack.callback(self._engine.dispose)
        self._parts = 0

    def block(self) -> Block:
        """What is measured."""
        return Block(
            name=plan.WEBHOOKS,
            cells=[
                Cell(name=plan.POSTS, measure=partial(self._post, kept=False)),
                Cell(name=plan.POSTS_KEPT, measure=partial(self._post, kept=True)),
                Cell(name=plan.DISPATCHER, measure=self._dispatch),
            ],
        )

    def _post(self, seconds: float, *, kept: bool) -> Reading:
        posts, before = _size(seconds), self._posting.cpu_seconds()
        asked = {"urls": self._urls, "posts": posts, "at_once": AT_ONCE, "kept": kept}
        with socket.create_connection(
            ("127.0.0.1", self._posting.port), PATIENCE_SECONDS
        ) as connection:
            connection.sendall(json.dumps(asked).encode() + b"\n")
            connection.recv(16)
        spent = self._posting.cpu_seconds() - before
        return Reading(self._received(posts), None, spent)

    def _dispatch(self, seconds: float) -> Reading:
        posts, before = _size(seconds), self._service.cpu_seconds()
        with self._engine.begin() as connection:
            delivered = count_by_status(connection).get("DELIVERED", 0)
            insert_due(connection, posts, self._urls, part=self._parts)
        self._parts += 1
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (counts := self._counts()).get("PENDING") and time.monotonic() < deadline:
            time.sleep(0.05)
        tally = self._received(posts)
        tally.transitions = posts
        spent = self._service.cpu_seconds() - before
        return Reading(tally, counts.get("DELIVERED", 0) - delivered, spent)

    def _counts(self) -> dict[str, int]:
        with self._engine.connect() as connection:
            return count_by_status(connection)

    def _received(self, expected: int) -> Tally:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[0], PATIENCE_SECONDS)
        connection.request("GET", "/")
        told = json.loads(connection.getresponse().read())
        connection.close()
        tally = Tally(calls=told["posts"], jobs=told["posts"], seconds=told["seconds"])
        if told["posts"] != expected:
            tally.failures["not every POST came, or not once"] += abs(told["posts"] - expected)
        return tally


def _size(seconds: float) -> int:
    return max(FEWEST, ceil(PER_SECOND * seconds))
