"""One of two replicas behind a proxy is killed, or drains, under calls of every kind."""

import asyncio
import functools
import json
import signal
import ssl
import time
import uuid
from collections.abc import Coroutine
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Final

import grpc
import pytest
import sqlalchemy as sa

from milepost.storage.tables import operations
from milepost_client import Milepost, Operation, Status
from tests.e2e.client import Client
from tests.e2e.http.exchange import Http
from tests.e2e.rpcs import BY_METHOD
from tests.e2e.service import Service
from tests.faults.history import histories
from tests.proxies import Proxy, require_any
from tests.waiting import eventually, until

DEADLINE_S: Final = 30.0
CALLERS: Final = 2
"""Callers with the client of this repository for each proxy."""
CALLS_BETWEEN: Final = 50
"""Calls through each proxy that succeed before each loss of a replica."""
PAUSE_S: Final = 0.1
FINISHED: Final = "milepost_operations_finished_total"
MAX_TRIES: Final = 100
RETRY_POLICY: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "INTERNAL", "UNKNOWN"],
                },
            }
        ]
    }
)
"""The policy of a stock client, as docs/operating.md has it."""
REPEATED: Final = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE}
PASSING: Final = (ConnectionError, HTTPException, ssl.SSLError)


@dataclass
class Load:
    """Callers that create operations and complete them, until they are stopped."""

    proxy: Proxy
    client: Client
    function: str
    created: list[str] = field(default_factory=list)
    """Acknowledged creates."""
    completed: set[str] = field(default_factory=set)
    """Acknowledged completions."""
    calls: int = 0
    is_over: bool = False

    async def run(self, milepost: Milepost) -> None:
        """Call with the client of this repository."""
        while not self.is_over:
            operation = await milepost.create(self.function)
            self.created.append(operation.id)
            await milepost.start(operation.id)
            await milepost.complete(operation.id, 7)
            self.completed.add(operation.id)
            assert (await milepost.get(operation.id)).status is Status.COMPLETED
            self.calls += 4

    async def run_stock(self) -> None:
        """Call with the stub of gRPC and its own policy of retries."""
        options = (("grpc.service_config", RETRY_POLICY), ("grpc.enable_retries", 1))
        async with self.proxy.channel(*options) as channel:
            while not self.is_over:
                fields = {"function": self.function, "request_id": uuid.uuid4().hex}
                answer = await self._stock(channel, "CreateOperation", **fields)
                self.created.append(answer.operation.id)
                await self._stock(channel, "GetOperation", operation_id=answer.operation.id)
                self.calls += 2

    async def _stock(self, channel: grpc.aio.Channel, method: str, **fields: Any) -> Any:
        rpc = BY_METHOD[method]
        request = rpc.request(**fields)
        return await rpc.on(channel)(request, metadata=self.client.metadata, timeout=DEADLINE_S)

    def run_http(self) -> None:
        """Call over HTTP, with the retries of any HTTP client."""
        while not self.is_over:
            key = uuid.uuid4().hex
            answer = self._http("POST", "/v1/operations", {"function": self.function}, key)
            self.created.append(answer["id"])
            self._http("GET", f"/v1/operations/{answer['id']}")
            self.calls += 2

    def _http(self, verb: str, path: str, body: Any = None, key: str = "") -> Any:
        headers = {"Idempotency_Key": key} if key else {}
        for _ in range(MAX_TRIES):
            http = Http(self.proxy, f"Bearer {self.client.key}", self.proxy.context)
            with closing(http), suppress(*PASSING):
                answer = http(verb, path, body, **headers)
                if answer.status not in REPEATED:
                    assert answer.status < HTTPStatus.BAD_REQUEST, answer
                    return answer.json
            time.sleep(PAUSE_S)
        raise AssertionError(f"no answer to {verb} {path}")

    async def named(self, calling: Coroutine[Any, Any, None]) -> None:
        """Run callers; an error names the proxy."""
        try:
            await calling
        except Exception as error:
            error.add_note(f"through {self.proxy.name}")
            raise

    async def until_more(self) -> None:
        """Wait until more calls have succeeded."""
        enough = self.calls + CALLS_BETWEEN
        await until(lambda: self.calls >= enough, DEADLINE_S)


@dataclass
class Watch:
    """A watch of the client, from the create of an operation to its end."""

    milepost: Milepost
    operation: Operation
    seen: list[Operation] = field(default_factory=list)

    async def run(self) -> None:
        """Collect the changes."""
        async for change in self.milepost.watch(self.operation.id):
            self.seen.append(change)

    def check(self) -> None:
        """Assert that every status was seen once."""
        statuses = [change.status for change in self.seen]
        assert statuses == [Status.PENDING, Status.PROCESSING, Status.COMPLETED]


async def lose(replica: Service, how: signal.Signals, loads: list[Load]) -> None:
    """End a replica with a signal, and start it again, until all proxies send it calls."""
    assert replica.process is not None
    replica.process.send_signal(how)
    code = await asyncio.to_thread(replica.end)
    assert code == (0 if how is signal.SIGTERM else -how), replica.log()
    await asyncio.to_thread(replica.start)
    for load in loads:
        await asyncio.to_thread(
            eventually,
            functools.partial(replica.metric, FINISHED, function=load.function),
            within=DEADLINE_S,
            what=f"{load.proxy.name} sends calls",
        )


async def lose_in_turn(replicas: list[Service], loads: list[Load], rounds: int) -> None:
    """Kill one replica and drain the other one, so many times."""
    for number in range(rounds):
        turn = replicas if number % 2 == 0 else replicas[::-1]
        for replica, how in zip(turn, (signal.SIGKILL, signal.SIGTERM), strict=True):
            await asyncio.gather(*(load.until_more() for load in loads))
            await lose(replica, how, loads)
    await asyncio.gather(*(load.until_more() for load in loads))


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(1, marks=pytest.mark.timeout(240)),
        pytest.param(10, marks=[pytest.mark.faults, pytest.mark.timeout(900)]),
    ],
)
async def test_lost_replicas_lose_nothing(replicas, proxies, function, rounds):
    """No call fails after retries, every create is there once, and watches see each status.

    Calls run through all proxies at once.
    """
    require_any(proxies)
    client = replicas[0].client("alice", ("CALLER", "WORKER"), ("*",))
    loads = [Load(proxy, client, f"{function}.{name}") for name, proxy in proxies.items()]
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        tasks, watches = [], []
        for load in loads:
            for _ in range(CALLERS):
                milepost = load.proxy.milepost(client.key, deadline=DEADLINE_S)
                await stack.enter_async_context(milepost)
                watches.append(Watch(milepost, await milepost.create(f"{function}.watched")))
                tasks.append(group.create_task(load.named(load.run(milepost))))
            tasks.append(group.create_task(load.named(load.run_stock())))
            tasks.append(group.create_task(load.named(asyncio.to_thread(load.run_http))))
        watching = [group.create_task(watch.run()) for watch in watches]
        try:
            await lose_in_turn(replicas, loads, rounds)
        finally:
            for load in loads:
                load.is_over = True
        await asyncio.gather(*tasks)
        for watch in watches:
            await watch.milepost.start(watch.operation.id)
            await watch.milepost.complete(watch.operation.id)
        await asyncio.wait_for(asyncio.gather(*watching), DEADLINE_S)
    for watch in watches:
        watch.check()
    for load in loads:
        check(replicas[0], load)


def check(replica: Service, load: Load) -> None:
    """Assert that the database has what was acknowledged, each once, and nothing else."""
    rows = sa.select(operations.c.id).where(operations.c.function == load.function)
    with replica.engine.connect() as connection:
        stored = connection.scalars(rows).all()
    assert sorted(stored) == sorted(load.created)
    found = histories(replica.database_url)
    for history in found.values():
        history.check()
    assert all(found[each].row["status"] == Status.COMPLETED for each in load.completed)
