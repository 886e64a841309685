"""Thousands of idle watchers: their memory, and the delay of a change."""

import asyncio
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import grpc
import psutil
import pytest

from milepost.storage.tables import operations
from tests import factories
from tests.e2e.client import Client
from tests.e2e.service import Service
from tests.machine import free_ports, slowdown
from tests.waiting import eventually

STREAMS_PER_CHANNEL = 500
OPENED_AT_ONCE = 100
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
"""Channel options for a connection of its own."""
MAX_MEMORY_RATIO = 1.4
"""Maximum memory of a watcher in relation to an empty stream of grpc.aio."""
SOON_S = 0.02
"""Time within which 99 of 100 changes reach their watcher."""
CHANGES = 100
"""Changes of one series."""
MAX_SERIES = 10
"""Other load on the machine slows one series; a slow service slows all of them.

Each cancels other operations: together not more than are watched.
"""
OPEN_S = 900.0
MAX_WAIT_S = 60.0


@contextmanager
def empty_server() -> Iterator[tuple[str, int]]:
    """The address and the process id of a server whose streams do nothing."""
    (port,) = free_ports(1)
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.echo", str(port)])
    try:
        eventually(lambda: _listens(process.pid, port), within=30, what="listens")
        yield f"127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        process.wait()


def _listens(pid: int, port: int) -> bool:
    sockets = psutil.Process(pid).net_connections("tcp")
    return any(s.laddr.port == port and s.status == psutil.CONN_LISTEN for s in sockets)


class Idle:
    """A watcher that records the time of every change it receives."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.changed_at = 0.0
        self.changed = asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while (item := await self._call.read()) is not grpc.aio.EOF:
            if item.HasField("operation"):
                self.changed_at = time.perf_counter()
                self.changed.set()

    async def next(self) -> None:
        """Wait until another change has arrived since the last time."""
        async with asyncio.timeout(MAX_WAIT_S):
            await self.changed.wait()
        self.changed.clear()

    async def close(self) -> None:
        """Stop watching."""
        self._call.cancel()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def watchers(address: str, client: Client, ids: list[str]) -> AsyncIterator[list[Idle]]:
    """Start a watcher of each operation and wait for its first answer."""
    async with AsyncExitStack() as stack:
        found: list[Idle] = []
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=OPTIONS))
            for _ in range(0, len(ids), STREAMS_PER_CHANNEL)
        ]
        for start in range(0, len(ids), OPENED_AT_ONCE):
            channel = channels[start // STREAMS_PER_CHANNEL]
            some = [
                Idle(client.watch(channel, id_, seconds=OPEN_S))
                for id_ in ids[start : start + OPENED_AT_ONCE]
            ]
            found += some
            await asyncio.gather(*(idle.next() for idle in some))
        yield found
        await asyncio.gather(*(idle.close() for idle in found))


async def delays(
    client: Client, channel: grpc.aio.Channel, watched: list[tuple[str, Idle]]
) -> list[float]:
    """Return the percentiles of the seconds until each watcher received its change."""
    found = []
    for operation_id, idle in watched:
        start = time.perf_counter()
        await client.begin(channel, "CancelOperation", operation_id=operation_id)
        await idle.next()
        found.append(idle.changed_at - start)
    return statistics.quantiles(found, n=100)


def rss(pid: int) -> int:
    """Return the bytes of memory of the process."""
    size: int = psutil.Process(pid).memory_info().rss
    return size


@pytest.mark.parametrize(
    "count",
    [1_000, pytest.param(10_000, marks=[pytest.mark.faults, pytest.mark.timeout(900)])],
)
async def test_idle_watchers_are_cheap_and_fast(database_url, tmp_path, count):
    """An idle watcher costs at most 1.4 times an empty stream, and gets a change in 20 ms."""
    with (
        Service(database_url, tmp_path, forked=False) as service,
        empty_server() as (address, empty),
    ):
        alice = service.client("alice")
        rows = [factories.row(owner=alice.subject) for _ in range(count)]
        with service.engine.begin() as connection:
            factories.insert(connection, operations, rows)
        ids = [row["id"] for row in rows]
        warm = alice.watch(service.channel, ids[0])
        assert next(warm).operation.id == ids[0]
        warm.cancel()
        before = rss(empty)
        async with watchers(address, alice, ids):
            floor = (rss(empty) - before) / count
        assert service.process is not None
        pid = service.process.pid
        before = rss(pid)
        async with watchers(service.address, alice, ids) as found, service.aio_channel() as channel:
            cost = (rss(pid) - before) / count
            series, is_soon = [], False
            for begin in range(MAX_SERIES):
                places = range(begin, count, count // CHANGES)
                series.append(await delays(alice, channel, [(ids[n], found[n]) for n in places]))
                if is_soon := series[-1][98] < SOON_S * slowdown():
                    break
        figures = {
            "empty_bytes": floor,
            "watcher_bytes": cost,
            "p50_s": series[-1][49],
            "p99_s": [percentiles[98] for percentiles in series],
        }
        logging.getLogger(__name__).info("%s watchers: %s", count, figures)
        assert cost <= MAX_MEMORY_RATIO * floor, figures
        assert is_soon, figures
