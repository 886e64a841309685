"""The service behind real proxies, and behind the one of the tests, which is always there."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from milepost_client import Operation, Status, Worker
from tests.e2e.client import Client
from tests.e2e.rpcs import BY_METHOD
from tests.e2e.service import RECONNECT, Service
from tests.http2_proxy import http2_proxy
from tests.proxies import KINDS, Configuration, Proxy, require
from tests.waiting import until

MAX_REFUSALS = 60


@pytest.fixture
def replica(sqlite_url: str, tmp_path: Path):
    """A service that the test kills and starts again."""
    with Service(sqlite_url, tmp_path) as replica:
        yield replica


@pytest.fixture(params=["frames", *KINDS])
async def proxy(
    request: pytest.FixtureRequest, replica: Service, tmp_path: Path
) -> AsyncIterator[Proxy]:
    """A proxy in front of the service."""
    if request.param == "frames":
        async with http2_proxy(replica.address) as frames:
            yield Proxy("frames", frames.address)
        return
    require(request.param)
    with Configuration(request.param, [replica, replica], tmp_path).running() as proxy:
        yield proxy


async def restart(replica: Service) -> None:
    """Kill the service, and start it again."""
    await asyncio.to_thread(replica.kill)
    await asyncio.to_thread(replica.start)


async def test_refusals_do_not_take_the_replica_away(replica, proxy):
    """However many bad requests one caller sends, the calls of others pass the proxy."""
    mallory, alice = replica.client("mallory"), replica.client("alice")
    async with proxy.channel(*RECONNECT) as channel:

        async def code(client: Client, **fields: object) -> grpc.StatusCode:
            rpc = BY_METHOD["CreateOperation"]
            call = rpc.on(channel)(rpc.request(**fields), metadata=client.metadata, timeout=20)
            found: grpc.StatusCode = await call.code()
            return found

        worst = {"callback_events": ["\U0001f600" * 99] * 99}
        codes = await asyncio.gather(*(code(mallory, **worst) for _ in range(MAX_REFUSALS)))
        assert set(codes) == {grpc.StatusCode.INVALID_ARGUMENT}
        codes = await asyncio.gather(*(code(alice, function="f") for _ in range(20)))
        assert set(codes) == {grpc.StatusCode.OK}


async def test_clients_outlive_a_replica_behind_a_proxy(replica, proxy):
    """A watch, a wait and a worker go on when the replica is killed and comes back."""
    function = f"test.{uuid.uuid4().hex}"
    keys = replica.api_key("alice"), replica.api_key("wally", ("WORKER",), ("*",))
    seen: list[Operation] = []
    is_working, may_end = asyncio.Event(), asyncio.Event()

    async def work(held: object) -> int:
        await held.progress(0.5)  # type: ignore[attr-defined]
        is_working.set()
        await may_end.wait()
        return 7

    async with (
        proxy.milepost(keys[0], deadline=60) as caller,
        proxy.milepost(keys[1], deadline=60) as milepost,
    ):
        operation = await caller.create(function)

        async def watch() -> None:
            async for change in caller.watch(operation.id):
                seen.append(change)  # noqa: PERF401 - each at once

        watching = asyncio.create_task(watch())
        waiting = asyncio.create_task(caller.result(operation.id))
        await until(lambda: bool(seen))
        await restart(replica)
        worker = Worker(milepost, {function: work}, lease=30)
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(60):
            await is_working.wait()
            await restart(replica)
            may_end.set()
            assert await waiting == 7
            await watching
        worker.stop()
        await running
    statuses = [change.status for change in seen]
    assert [status for n, status in enumerate(statuses) if status not in statuses[:n]] == [
        Status.PENDING,
        Status.PROCESSING,
        Status.COMPLETED,
    ]
    revisions = [change.revision for change in seen]
    assert revisions == sorted(set(revisions))
