"""A service that is killed in the middle of its work."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2
from grpc import StatusCode

from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.client import FUNCTION, Client
from tests.e2e.service import Service
from tests.faults.history import histories

WORKERS = 32
REPORTS = 8
GONE = {StatusCode.UNAVAILABLE, StatusCode.CANCELLED, StatusCode.UNKNOWN}
"""Codes that callers of a killed process get."""


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service on each database."""
    with Service(database_url, tmp_path) as service:
        yield service


@dataclass
class Life:
    """One operation, as far as its worker knows."""

    operation: pb.Operation
    """The last acknowledged operation."""
    result: any_pb2.Any
    finished: bool = False


class Work:
    """Workers that report progress, complete, and record every acknowledgement."""

    def __init__(self, client: Client, channel: grpc.aio.Channel) -> None:
        self._client = client
        self._channel = channel
        self.lives: list[Life] = []
        self.acknowledged = 0
        self._news = asyncio.Condition()

    async def go_on(self) -> None:
        """Work on one operation after the other, until the service is gone."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self._for_ever()
        assert caught.value.code() in GONE, caught.value

    async def _for_ever(self) -> None:
        while True:
            await self._live()

    async def _live(self) -> None:
        created = await self._client.begin(self._channel, "CreateOperation", function=FUNCTION)
        operation = created.operation
        result = any_pb2.Any(type_url="example.com/id", value=operation.id.encode() * 20)
        life = Life(operation, result)
        self.lives.append(life)
        for number in range(REPORTS):
            await self._transition(life, "UpdateProgress", progress=(number + 1) / REPORTS)
        await self._transition(life, "CompleteOperation", result=result)
        life.finished = True

    async def _transition(self, life: Life, method: str, **fields: object) -> None:
        response = await self._client.begin(
            self._channel, method, operation_id=life.operation.id, **fields
        )
        life.operation = response.operation
        self.acknowledged += 1
        async with self._news:
            self._news.notify_all()

    async def until(self, acknowledged: int) -> None:
        """Wait until so many transitions are acknowledged."""
        async with self._news:
            await self._news.wait_for(lambda: self.acknowledged >= acknowledged)


async def work_until_killed(service: Service, client: Client, count: int) -> list[Life]:
    """Kill a service after `count` acknowledged transitions and return its operations."""
    async with service.aio_channel() as channel:
        work = Work(client, channel)
        workers = [asyncio.create_task(work.go_on()) for _ in range(WORKERS)]
        enough = asyncio.create_task(work.until(count))
        await asyncio.wait([enough, *workers], return_when=asyncio.FIRST_COMPLETED)
        assert enough.done(), "the service was gone before it was killed"
        service.kill()
        await asyncio.gather(*workers)
    return work.lives


@pytest.mark.parametrize(
    "count", [200, pytest.param(2_000, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)
async def test_acknowledged_transitions_survive_a_kill(service, count):
    """After a kill every acknowledged transition is stored, and the work continues."""
    client = service.client("both", roles=("CALLER", "WORKER"), functions=("*",))
    lives: list[Life] = []
    for _ in range(2):
        lives += await work_until_killed(service, client, count // 2)
        service.start()
    assert any(not life.finished for life in lives)
    async with service.aio_channel() as channel:
        for life in lives:
            acknowledged = life.operation
            response = await client.begin(channel, "GetOperation", operation_id=acknowledged.id)
            stored = response.operation
            # The call in flight may have been committed or not.
            ahead = stored.revision - acknowledged.revision
            assert ahead == 0 if life.finished else ahead in {0, 1}
            assert stored.progress >= acknowledged.progress
            if life.finished:
                assert stored == acknowledged
                assert stored.result == life.result
            if not ahead:
                assert stored.status == acknowledged.status
                assert stored.progress == acknowledged.progress
    found = histories(service.database_url)
    assert {life.operation.id for life in lives} <= found.keys()
    for history in found.values():
        history.check()
    assert len(found) - len(lives) <= WORKERS * 2  # created, and killed before the answer
