"""Calls and streams on which nothing happens for a long time, through real proxies.

The small size is longer than the time that proxies allow for a request, the full one
(`make faults`) than every time that they have for calls.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from milepost.gen.milepost.v1 import operation_pb2
from milepost.gen.milepost.v1 import worker_service_pb2 as worker_pb
from tests.e2e.client import Client
from tests.e2e.http.exchange import EventStream, RawHttp
from tests.e2e.rpcs import BY_METHOD
from tests.proxies import Proxy, require_any

MAX_WAIT_S: Final = 60
MARGIN_S: Final = 15
CANCELLED: Final = operation_pb2.OPERATION_STATUS_CANCELLED


@dataclass(frozen=True)
class Quiet:
    """One proxy, through which calls of one client are quiet for some time."""

    proxy: Proxy
    client: Client
    function: str
    seconds: float

    async def check(self) -> None:
        """Make quiet calls of every kind at once."""
        async with asyncio.TaskGroup() as group, self.proxy.channel() as channel:
            tasks = [
                group.create_task(kind(channel))
                for kind in (self.wait, self.claim, self.watch, self.progress, self.health)
            ]
            tasks.append(group.create_task(asyncio.to_thread(self.events)))
            await asyncio.wait(tasks)

    async def wait(self, channel: grpc.aio.Channel) -> None:
        """Wait for a change that does not happen, as long as one call may."""
        operation = await self._create(channel)
        async for seconds in self._waits():
            answer = await self._call(channel, "WaitOperation", seconds, operation_id=operation.id)
            assert answer.operation.revision == operation.revision

    async def claim(self, channel: grpc.aio.Channel) -> None:
        """Wait for work that does not come."""
        async for seconds in self._waits():
            answer = await self._call(
                channel, "ClaimOperations", seconds, functions=[f"{self.function}.none"]
            )
            assert not answer.operations

    async def watch(self, channel: grpc.aio.Channel) -> None:
        """Watch an operation that changes after a long time: the same stream has the change."""
        operation = await self._create(channel)
        watch = self.client.watch(
            channel, operation.id, operation.revision, seconds=self.seconds + MARGIN_S
        )
        async with self._cancelled_later(channel, operation.id):
            changes = [item.operation async for item in watch if item.HasField("operation")]
        assert [change.status for change in changes] == [CANCELLED]

    async def progress(self, channel: grpc.aio.Channel) -> None:
        """Report before and after a long time on the same stream."""
        operation = await self._create(channel)
        stream = BY_METHOD["StreamProgress"].on(channel)(metadata=self.client.metadata)
        for progress in (0.1, 0.2):
            request = worker_pb.StreamProgressRequest(operation_id=operation.id, progress=progress)
            await stream.write(request)
            response = await stream.read()
            assert response is not grpc.aio.EOF, await stream.code()
            assert response.acknowledgement.operation_id == operation.id
            await asyncio.sleep(self.seconds * (progress == 0.1))
        stream.cancel()

    async def health(self, channel: grpc.aio.Channel) -> None:
        """Watch the health of the service, which does not change."""
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await asyncio.sleep(self.seconds)
        assert not watch.done()
        watch.cancel()

    def events(self) -> None:
        """Watch over HTTP an operation that changes after a long time."""
        operation = self.client.create(function=self.function)
        last = str(operation.revision)
        raw = RawHttp(self.proxy, self.proxy.context)
        with EventStream(raw, self.client.key, operation.id, Last_Event_ID=last) as stream:
            time.sleep(self.seconds)
            self.client.transition("CancelOperation", operation.id)
            (event,) = stream.events()
        assert event.data["status"] == "OPERATION_STATUS_CANCELLED"

    async def _create(self, channel: grpc.aio.Channel) -> operation_pb2.Operation:
        answer = await self.client.begin(channel, "CreateOperation", function=self.function)
        operation: operation_pb2.Operation = answer.operation
        return operation

    async def _waits(self) -> AsyncIterator[float]:
        """Yield the lengths of calls that take the whole time together, and check each one."""
        left = self.seconds
        while left > 0:
            seconds = min(left, MAX_WAIT_S)
            start = time.monotonic()
            yield seconds
            assert time.monotonic() - start > seconds - 1
            left -= seconds

    async def _call(
        self, channel: grpc.aio.Channel, method: str, seconds: float, **fields: Any
    ) -> Any:
        rpc = BY_METHOD[method]
        timeout = duration_pb2.Duration()
        timeout.FromMilliseconds(round(seconds * 1_000))
        return await rpc.on(channel)(
            rpc.request(timeout=timeout, **fields),
            metadata=self.client.metadata,
            timeout=seconds + MARGIN_S,
        )

    @asynccontextmanager
    async def _cancelled_later(
        self, channel: grpc.aio.Channel, operation_id: str
    ) -> AsyncIterator[None]:
        """Cancel the operation when the quiet time is over."""

        async def cancel() -> None:
            await asyncio.sleep(self.seconds)
            await self.client.begin(channel, "CancelOperation", operation_id=operation_id)

        cancelling = asyncio.create_task(cancel())
        yield
        await cancelling


@pytest.mark.parametrize(
    "seconds", [12, pytest.param(185, marks=[pytest.mark.faults, pytest.mark.timeout(400)])]
)
async def test_quiet_calls_are_not_cut(replicas, proxies, function, seconds):
    """Waits, claims, watches and streams without a message go on, through all proxies at once."""
    require_any(proxies)
    client = replicas[0].client("alice", ("CALLER", "WORKER"), ("test.*",))
    async with asyncio.TaskGroup() as group:
        for name, proxy in proxies.items():
            quiet = Quiet(proxy, client, function, seconds)
            group.create_task(quiet.check(), name=name)
