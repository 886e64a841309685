"""Concurrent terminal transitions over two processes of the service."""

import asyncio
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from grpc import StatusCode

from milepost.domain.transitions import Transition
from tests.e2e.client import FUNCTION, Client
from tests.e2e.rpcs import BROKEN
from tests.faults.history import histories

AT_ONCE = 32
CHANCE = random.Random()  # noqa: S311 - which call goes where is no secret
ENDS: dict[str, tuple[Transition, str, dict[str, Any]]] = {
    "CompleteOperation": (
        Transition.COMPLETE,
        "COMPLETED",
        {"result": any_pb2.Any(type_url="x/y")},
    ),
    "FailOperation": (Transition.FAIL, "FAILED", {"errors": [BROKEN]}),
    "CancelOperation": (Transition.CANCEL, "CANCELLED", {}),
}
sizes = pytest.mark.parametrize(
    "count", [100, pytest.param(1_000, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)


@dataclass
class Race:
    """The answers about one operation."""

    operation_id: str
    reports: int = 0
    doubtful_reports: int = 0
    """Reports without an answer in time, which may have been committed."""
    codes: dict[str, StatusCode] = field(default_factory=dict)

    @property
    def winners(self) -> list[str]:
        """The methods that were answered with success."""
        return [method for method in ENDS if self.codes[method] is StatusCode.OK]


async def answered(
    client: Client, channels: Sequence[grpc.aio.Channel], method: str, **fields: Any
) -> Any:
    """Return a call with its answer; repeat it, as clients do, while the store is too slow."""
    while True:
        call = client.begin(CHANCE.choice(channels), method, **fields)
        if await call.code() is not StatusCode.UNAVAILABLE:
            return call


async def changed(
    client: Client, channels: Sequence[grpc.aio.Channel], method: str, **fields: Any
) -> Any:
    """Return the call of a change, which happens once however often it is repeated."""
    return await answered(client, channels, method, request_id=str(uuid.uuid4()), **fields)


async def race(client: Client, channels: Sequence[grpc.aio.Channel]) -> Race:
    """Start an operation, then complete, fail and cancel it at once."""
    created = await (await changed(client, channels, "CreateOperation", function=FUNCTION))
    operation_id = created.operation.id
    await (await changed(client, channels, "StartOperation", operation_id=operation_id))
    calls = {
        method: asyncio.create_task(
            changed(client, channels, method, operation_id=operation_id, **more)
        )
        for method, (_, _, more) in CHANCE.sample(sorted(ENDS.items()), len(ENDS))
    }
    reports = [
        client.begin(
            CHANCE.choice(channels), "UpdateProgress", operation_id=operation_id, progress=0.5
        )
        for _ in range(2)
    ]
    found = Race(operation_id)
    for method, call in calls.items():
        found.codes[method] = await (await call).code()
    for call in reports:
        code = await call.code()
        found.reports += code is StatusCode.OK
        found.doubtful_reports += code is StatusCode.UNAVAILABLE
        assert code in {StatusCode.OK, StatusCode.FAILED_PRECONDITION, StatusCode.UNAVAILABLE}
    return found


async def races(client: Client, channels: Sequence[grpc.aio.Channel], count: int) -> list[Race]:
    """Run `count` races, some of them at once."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one() -> Race:
        async with turns:
            return await race(client, channels)

    return await asyncio.gather(*(one() for _ in range(count)))


@sizes
async def test_exactly_one_end_wins(replicas, count):
    """Of a complete, a fail and a cancel at once, over two processes, exactly one wins.

    The losers get FAILED_PRECONDITION, all readers agree on the winner, every history is
    legal, and every revision is that of a transition that was acknowledged, or had no answer.
    """
    client = replicas[0].client("both", roles=("CALLER", "WORKER"), functions=("*",))
    channels = [service.aio_channel() for service in replicas]
    try:
        found = await races(client, channels, count)
        for one in found:
            (winner,) = one.winners
            losers = {code for method, code in one.codes.items() if method != winner}
            assert losers == {StatusCode.FAILED_PRECONDITION}
            reads = [
                await (
                    await answered(client, [channel], "GetOperation", operation_id=one.operation_id)
                )
                for channel in channels
            ]
            assert reads[0] == reads[1]
    finally:
        for channel in channels:
            await channel.close()
    stored = histories(replicas[0].database_url)
    assert len(stored) == count
    for one in found:
        history = stored[one.operation_id]
        history.check()
        transition, status, _ = ENDS[one.winners[0]]
        assert history.transitions == [Transition.CREATE, Transition.START, transition]
        assert history.row["status"] == status
        committed = history.row["revision"] - len(history.events)
        assert one.reports <= committed <= one.reports + one.doubtful_reports
    wins = {method: sum(one.winners == [method] for one in found) for method in ENDS}
    assert all(wins.values()), f"one end never won: {wins}"


@sizes
async def test_cancel_and_start_never_revive(replicas, count):
    """A start concurrent with a cancel never leads from CANCELLED to PROCESSING."""
    client = replicas[0].client("both", roles=("CALLER", "WORKER"), functions=("*",))
    channels = [service.aio_channel() for service in replicas]
    turns = asyncio.Semaphore(AT_ONCE)

    async def one() -> tuple[str, StatusCode]:
        async with turns:
            created = await (await changed(client, channels, "CreateOperation", function=FUNCTION))
            operation_id: str = created.operation.id
            calls = await asyncio.gather(
                *(
                    changed(client, channels, method, operation_id=operation_id)
                    for method in ("StartOperation", "StartOperation", "CancelOperation")
                )
            )
            codes = [await call.code() for call in calls]
            assert codes[:2].count(StatusCode.OK) <= 1
            assert codes[2] is StatusCode.OK
            return operation_id, codes[0] if codes[0] is StatusCode.OK else codes[1]

    try:
        found = await asyncio.gather(*(one() for _ in range(count)))
    finally:
        for channel in channels:
            await channel.close()
    stored = histories(replicas[0].database_url)
    for operation_id, started in found:
        history = stored[operation_id]
        history.check()
        assert history.row["status"] == "CANCELLED"
        began = [Transition.START] if started is StatusCode.OK else []
        assert history.transitions == [Transition.CREATE, *began, Transition.CANCEL]
