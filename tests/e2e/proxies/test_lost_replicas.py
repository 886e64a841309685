"""One of two replicas behind a proxy is killed, or drains, under calls of every kind."""

import asyncio
import itertools
import json
import signal
import ssl
import time
import uuid
from contextlib import AsyncExitStack
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
from tests.proxies import Proxy
from tests.waiting import eventually, until

DEADLINE_S: Final = 30.0
CALLERS: Final = 4
WATCHES: Final = 4
CALLS_BETWEEN: Final = 100
"""Calls that succeed before each loss of a replica."""
PAUSE_S: Final = 0.1
COMPLETE: Final = "milepost.v1.WorkerService/CompleteOperation"
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
        for attempt in itertools.count():
            http = Http(self.proxy, f"Bearer {self.client.key}", self.proxy.context)
            try:
                answer = http(verb, path, body, **headers)
            except PASSING:
                pass
            else:
                if answer.status not in REPEATED:
                    assert answer.status < HTTPStatus.BAD_REQUEST, answer
                    return answer.json
            finally:
                http.close()
            assert attempt < MAX_TRIES
            time.sleep(PAUSE_S)

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
            self.seen.append(change)  # noqa: PERF401 - each at once

    def check(self) -> None:
        """Assert that every status was seen once."""
        statuses = [change.status for change in self.seen]
        assert statuses == [Status.PENDING, Status.PROCESSING, Status.COMPLETED]


async def lose(replica: Service, how: signal.Signals) -> None:
    """End a replica with a signal, and start it again, until the proxy sends it calls."""
    assert replica.process is not None
    replica.process.send_signal(how)
    code = await asyncio.to_thread(replica.end)
    assert code == (0 if how is signal.SIGTERM else -how), replica.log()
    await asyncio.to_thread(replica.start)
    await asyncio.to_thread(
        eventually,
        lambda: replica.metric("milepost_rpc_duration_seconds_count", method=COMPLETE, code="OK"),
        within=DEADLINE_S,
        what="the proxy sends calls",
    )


async def lose_in_turn(replicas: list[Service], load: Load, rounds: int) -> None:
    """Kill one replica and drain the other one, so many times."""
    for number in range(rounds):
        for replica, how in zip(replicas, (signal.SIGKILL, signal.SIGTERM), strict=True):
            await load.until_more()
            await lose(replica, how)
        replicas = replicas[::-1] if number % 2 == 0 else replicas
    await load.until_more()


@pytest.mark.parametrize(
    "rounds", [1, pytest.param(10, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)
async def test_lost_replicas_lose_nothing(proxy, replicas, function, rounds):
    """No call fails after retries, every create is there once, and watches see each status."""
    client = replicas[0].client("alice", ("CALLER", "WORKER"), (function,))
    load = Load(proxy, client, function)
    async with AsyncExitStack() as stack:
        mileposts = [
            await stack.enter_async_context(proxy.milepost(client.key, deadline=DEADLINE_S))
            for _ in range(CALLERS)
        ]
        watches = [Watch(each, await each.create(f"{function}.watched")) for each in mileposts]
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(watch.run()) for watch in watches]
            calling = [group.create_task(load.run(each)) for each in mileposts]
            calling.append(group.create_task(load.run_stock()))
            calling.append(group.create_task(asyncio.to_thread(load.run_http)))
            try:
                await lose_in_turn(replicas, load, rounds)
            finally:
                load.is_over = True
            await asyncio.gather(*calling)
            for watch in watches:
                await watch.milepost.start(watch.operation.id)
                await watch.milepost.complete(watch.operation.id)
            await asyncio.wait_for(asyncio.gather(*watching), DEADLINE_S)
    for watch in watches:
        watch.check()
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
