"""Replicas that are killed and started again together, and the times of these outages."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.e2e.client import Client
from tests.e2e.service import Service

PAUSE_S = 0.05
"""Pause before a call that failed is made again."""
RECOVERY_S = 1.0
"""Time in which clients connect again to replicas that are ready."""


@dataclass
class Outages:
    """The replicas of one database, and their outages so far."""

    replicas: Sequence[Service]
    found: list[tuple[float, float]] = field(default_factory=list)
    """The start and the end of each, in seconds of the system clock."""

    async def cause(self) -> None:
        """Kill all replicas, and start them again."""
        start = max([time.time(), *(end for _, end in self.found)])
        for replica in self.replicas:
            replica.kill()
        for replica in self.replicas:
            replica.start(ready=False)
        for replica in self.replicas:
            await asyncio.to_thread(replica.wait_until_ready)
        self.found.append((start, time.time() + RECOVERY_S))

    def within(self, start: float, end: float) -> float:
        """Return the seconds of outages between two times."""
        return sum(
            max(0.0, min(end, outage_end) - max(start, outage_start))
            for outage_start, outage_end in self.found
        )


async def insist(
    client: Client, channel: Callable[[], grpc.aio.Channel], method: str, **fields: Any
) -> Any:
    """Return the answer of a call, which is repeated while no replica answers it."""
    while True:
        try:
            return await client.begin(channel(), method, **fields)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(PAUSE_S)
