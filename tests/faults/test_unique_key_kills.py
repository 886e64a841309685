"""Creates with unique keys over two replicas that are killed: never two active operations."""

import asyncio
import itertools
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from milepost.domain.transitions import TERMINAL
from milepost.storage.tables import operations
from tests.e2e.client import FUNCTION, Client
from tests.faults.history import histories
from tests.faults.outages import Outages, insist

CALLERS = 16
CHANCE = random.Random()  # noqa: S311 - which replica gets a call is no secret
_LONG_AGO = 0.0
sizes = pytest.mark.parametrize(
    "count", [200, pytest.param(3_000, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)


@dataclass
class Known:
    """One operation, as its callers know it; the times are those of the test's clock."""

    key: str
    creates: int = 0
    """Answers that it was created, and not joined."""
    first_seen: float = float("inf")
    """The earliest answer with this operation."""
    last_asked: float = _LONG_AGO
    """The start of the latest call that was answered with it."""
    end_asked: float = float("inf")
    """The start of the first call that asked for its end."""
    ended: float = float("inf")
    """The earliest answer that it has ended."""


@dataclass
class Callers:
    """Callers of one subject, which create and cancel operations of a few keys."""

    client: Client
    channels: Sequence[grpc.aio.Channel]
    keys: Sequence[str]
    found: dict[str, Known] = field(default_factory=dict)
    created: int = 0

    async def run(self, count: int) -> None:
        """Create until `count` operations are created, and cancel some of them."""
        while self.created < count:
            await self._one(CHANCE.choice(self.keys))

    async def _one(self, key: str) -> None:
        asked = time.monotonic()
        answer = await self._call(
            "CreateOperation", function=FUNCTION, unique_key=key, request_id=uuid.uuid4().hex
        )
        known = self.found.setdefault(answer.operation.id, Known(key))
        assert known.key == key
        known.first_seen = min(known.first_seen, time.monotonic())
        known.last_asked = max(known.last_asked, asked)
        if not answer.joined:
            known.creates += 1
            self.created += 1
            known.end_asked = time.monotonic()
            cancel = {"operation_id": answer.operation.id, "request_id": uuid.uuid4().hex}
            await self._call("CancelOperation", **cancel)
            known.ended = time.monotonic()

    async def _call(self, method: str, **fields: Any) -> Any:
        return await insist(self.client, lambda: CHANCE.choice(self.channels), method, **fields)


def check(found: Sequence[Known]) -> None:
    """Assert that the operations of one key were active one after the other.

    Two were active at once if both were answered before the end of either was asked for, or if one
    was joined after its end.
    """
    in_order = sorted(found, key=lambda known: known.first_seen)
    for one, following in itertools.pairwise(in_order):
        assert one.end_asked <= following.first_seen, (one, following)
    for known in found:
        assert known.creates == 1, known
        assert known.last_asked <= known.ended, known


@sizes
async def test_unique_key_is_active_once_over_kills(replicas, count):
    """Sixteen callers over two replicas never have two active operations of one key."""
    outages = Outages(replicas)
    client = replicas[0].client("alice")
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(each.aio_channel()) for each in replicas]
        callers = Callers(client, channels, [f"key-{n}" for n in range(4)])
        running = [asyncio.create_task(callers.run(count)) for _ in range(CALLERS)]
        for share in (3, 2):
            while callers.created < count // share:
                await asyncio.sleep(0.05)
                assert not [task for task in running if task.done()]
            await outages.cause()
        await asyncio.gather(*running)
    of_key = defaultdict(list)
    for known in callers.found.values():
        of_key[known.key].append(known)
    for found in of_key.values():
        check(found)
    stored = histories(replicas[0].database_url)
    assert stored.keys() == callers.found.keys()
    for history in stored.values():
        history.check()
    with replicas[0].engine.connect() as connection:
        active = sa.select(sa.func.count()).where(operations.c.status.not_in(TERMINAL))
        assert connection.scalar(active) == 0
