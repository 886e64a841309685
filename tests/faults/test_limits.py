"""Limits over two processes of the service: the quota on PostgreSQL, and rates in one Redis."""

import asyncio
import contextlib
import functools
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from grpc import StatusCode

from tests.contract.stored import Stored
from tests.e2e.client import FUNCTION, Client
from tests.e2e.service import Service
from tests.faults.conftest import READS_PER_MINUTE
from tests.waiting import eventually

Codes = Counter[StatusCode]
QUOTA = 10
CONNECTIONS = 16
SECONDS = 6.0
sizes = pytest.mark.parametrize(
    "count", [200, pytest.param(1_000, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)


@contextlib.asynccontextmanager
async def connections(
    services: Sequence[Service], count: int
) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Open so many connections, half of them to each service."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [
        grpc.aio.insecure_channel(services[n % len(services)].address, options=options)
        for n in range(count)
    ]
    try:
        yield channels
    finally:
        for channel in channels:
            await channel.close()


def are_shared(services: Sequence[Service]) -> bool:
    """Return True if all of them keep their limits in the shared store."""
    return all(each.metric("milepost_limits_shared") == 1 for each in services)


def is_local(service: Service) -> bool:
    """Return True if the service keeps its limits locally."""
    return service.metric("milepost_limits_shared") == 0


@sizes
async def test_quota_is_exact_over_two_processes(limited_replicas, count):
    """Of very many concurrent creates over two processes exactly 10 are made and kept."""
    client = limited_replicas[0].client("alice")
    async with connections(limited_replicas, CONNECTIONS) as channels:
        calls = [
            client.begin(channels[n % CONNECTIONS], "CreateOperation", function=FUNCTION)
            for n in range(count)
        ]
        codes = Counter([await call.code() for call in calls])
    stored = Stored(limited_replicas[0].engine)
    assert stored.active(client.subject) == stored.count() == QUOTA
    # On a busy machine the last creates time out; one of these may have been committed.
    late = codes.pop(StatusCode.UNAVAILABLE, 0)
    assert QUOTA - late <= codes[StatusCode.OK] <= QUOTA
    assert codes[StatusCode.RESOURCE_EXHAUSTED] == count - late - codes[StatusCode.OK]
    assert late < count / 2


@sizes
async def test_quota_holds_while_operations_end(limited_replicas, count):
    """While operations end on two processes, never more than 10 are active."""
    client = limited_replicas[0].client("alice")
    stored = Stored(limited_replicas[0].engine)
    seen = []

    async def live(channel: grpc.aio.Channel) -> bool:
        call = client.begin(channel, "CreateOperation", function=FUNCTION)
        if await call.code() is not StatusCode.OK:
            return False
        seen.append(stored.active(client.subject))
        operation_id = (await call).operation.id
        await client.begin(channel, "CancelOperation", operation_id=operation_id)
        return True

    async with connections(limited_replicas, CONNECTIONS) as channels:
        made = await asyncio.gather(*(live(channels[n % CONNECTIONS]) for n in range(count)))
    assert sum(made) >= QUOTA
    assert max(seen) <= QUOTA
    assert stored.active(client.subject) == 0


async def flood(
    client: Client, channels: Sequence[grpc.aio.Channel], seconds: float, refusals: int
) -> Codes:
    """Read a missing operation as often as possible and return the codes.

    It ends after so many seconds, and on a slow machine not before so many refusals.
    """
    codes: Codes = Counter()
    end = time.monotonic() + seconds
    asked = f"op_{'0' * 24}"

    async def one(channel: grpc.aio.Channel) -> None:
        while time.monotonic() < end or codes[StatusCode.RESOURCE_EXHAUSTED] < refusals:
            codes[await client.begin(channel, "GetOperation", operation_id=asked).code()] += 1

    await asyncio.gather(*(one(channel) for channel in channels))
    return codes


async def test_rates_hold_over_replicas(limited_replicas):
    """Over 16 connections to two replicas that share a Redis, the limit holds within 5 %."""
    eventually(lambda: are_shared(limited_replicas), within=10, what="shared")
    client = limited_replicas[0].client("alice")
    async with connections(limited_replicas, CONNECTIONS) as channels:
        begun = time.monotonic()
        codes = await flood(client, channels, SECONDS, refusals=READS_PER_MINUTE)
        took = time.monotonic() - begun
    del codes[StatusCode.RESOURCE_EXHAUSTED]
    # On a busy machine the database may be too late for a call within the limit.
    assert set(codes) <= {StatusCode.NOT_FOUND, StatusCode.UNAVAILABLE}
    allowed = READS_PER_MINUTE + READS_PER_MINUTE / 60 * took
    assert allowed * 0.95 <= codes.total() <= allowed * 1.05
    assert are_shared(limited_replicas)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_calls_go_on_without_the_store(limited_replicas, redis, how):
    """While the Redis is down or hangs, local limits apply; after that it is used again."""
    eventually(lambda: are_shared(limited_replicas), within=10, what="shared")
    client = limited_replicas[0].client("alice")
    operation = client.create()
    async with connections(limited_replicas, CONNECTIONS) as channels:

        async def read(seconds: float) -> Codes:
            codes: Codes = Counter()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                calls = [
                    client.begin(channel, "GetOperation", operation_id=operation.id)
                    for channel in channels[:4]
                ]
                codes.update([await call.code() for call in calls])
                await asyncio.sleep(0.05)
            return codes

        running = asyncio.create_task(read(3.0))
        await asyncio.sleep(0.5)
        if how == signal.SIGKILL:
            redis.kill()
        else:
            redis.signal(how)
        assert set(await running) == {StatusCode.OK}
        for service in limited_replicas:
            lost = functools.partial(is_local, service)
            eventually(lost, within=5, what="local")
            assert service.metric("milepost_limits_lost_total") == 1
            assert len(service.log_lines(event="shared limits lost")) == 1
        if how == signal.SIGKILL:
            redis.start()
        else:
            redis.signal(signal.SIGCONT)
        eventually(lambda: are_shared(limited_replicas), within=10, what="shared again")
        assert set(await read(0.3)) == {StatusCode.OK}
