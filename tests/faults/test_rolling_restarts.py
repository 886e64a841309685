"""Two replicas restarted in turn under load: standard retries of gRPC hide it from callers."""

import asyncio
import itertools
import json
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import grpc
import pytest
from grpc import StatusCode

from tests.e2e.client import FUNCTION, Client
from tests.e2e.service import RECONNECT, Service
from tests.machine import slowdown

CALLS_PER_S: Final = 200
MAX_LIVES: Final = 100
"""Lives at once: those of 2.5 s."""
PAUSE_S: Final = 0.5
"""Pause after a restart, in which the clients find the replica again."""
SERVICE_CONFIG: Final = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
"""The retries that every gRPC library makes by itself, and nothing else."""
LIFE: Final = ("StartOperation", "UpdateProgress", "CompleteOperation", "GetOperation")
"""The calls of a life after its create."""


class Load:
    """Lives that begin at a constant rate, unless the machine is too slow for it."""

    def __init__(self, client: Client, channel: grpc.aio.Channel) -> None:
        self._client = client
        self._channel = channel
        self._room = asyncio.Semaphore(MAX_LIVES)
        self.codes: Counter[StatusCode] = Counter()
        self.problems: list[str] = []

    async def run(self, stopped: asyncio.Event) -> None:
        """Begin lives until stopped, and wait for the last ones."""
        calls_of_life = 1 + len(LIFE)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with asyncio.TaskGroup() as lives:
            for number in itertools.count(1):
                await self._room.acquire()
                lives.create_task(self._live()).add_done_callback(lambda _: self._room.release())
                due = begin + number * calls_of_life / CALLS_PER_S
                if stopped.is_set():
                    return
                await asyncio.sleep(due - loop.time())

    async def _live(self) -> None:
        created = await self._call("CreateOperation", function=FUNCTION)
        if created is not None:
            for method in LIFE:
                await self._call(method, operation_id=created.operation.id)

    async def _call(self, method: str, **fields: object) -> Any:
        if method != "GetOperation":
            fields["request_id"] = str(uuid.uuid4())
        call = self._client.begin(self._channel, method, **fields)
        code = await call.code()
        self.codes[code] += 1
        if code is StatusCode.OK:
            return await call
        self.problems.append(f"{method}: {code.name} {await call.details()}")
        return None


def channel_to(replicas: Sequence[Service]) -> grpc.aio.Channel:
    """Return a channel to all replicas with the standard retries."""
    options = (*RECONNECT, ("grpc.service_config", json.dumps(SERVICE_CONFIG)))
    addresses = ",".join(replica.address for replica in replicas)
    return grpc.aio.insecure_channel(f"ipv4:{addresses}", options=options)


@pytest.mark.parametrize(
    "restarts",
    [
        pytest.param(3, marks=pytest.mark.timeout(300)),
        pytest.param(20, marks=[pytest.mark.faults, pytest.mark.timeout(1_200)]),
    ],
)
async def test_rolling_restarts(replicas, restarts):
    """No call fails, none is answered CANCELLED, and every replica exits with 0."""
    client = replicas[0].client("both", roles=("CALLER", "WORKER"), functions=("*",))
    stopped = asyncio.Event()
    async with channel_to(replicas) as channel:
        load = Load(client, channel)
        begin = time.monotonic()
        running = asyncio.create_task(load.run(stopped))
        for replica in itertools.islice(itertools.cycle(replicas), restarts):
            await asyncio.sleep(PAUSE_S)
            await asyncio.to_thread(replica.stop)
            await asyncio.to_thread(replica.start)
        stopped.set()
        await running
    rate = load.codes.total() / (time.monotonic() - begin)
    print(f"{rate:.0f} calls/s", load.codes)  # noqa: T201 - to be read with -s
    assert rate > CALLS_PER_S / 2 / slowdown()
    assert load.problems == []
    assert load.codes.keys() == {StatusCode.OK}
