"""Progress streams through a kill of the service, and over two replicas."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from tests.e2e.client import Client
from tests.e2e.service import Service
from tests.e2e.test_streaming import Stream, streaming
from tests.faults.history import histories
from tests.machine import slowdown
from tests.waiting import until

MAX_WAIT_S = 60.0


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service on each database that commits nearly every update by itself."""
    with Service(database_url, tmp_path, stream_interval_seconds="0.01") as service:
        yield service


@dataclass
class Acknowledged:
    """The progress of an operation as its worker knows it."""

    progress: float = 0.0
    """The last acknowledged value."""
    revision: int = 0
    """The last acknowledged value."""
    unknown: int = 1
    """Later updates that may be committed or not: the one in flight, and those that a busy store
    did not answer in time."""


async def work(stream: Stream, operation_id: str, progress: float, known: Acknowledged) -> None:
    """Report progress until the service is gone; record the acknowledgements."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            answer = await stream.ask(operation_id, progress=progress)
            if isinstance(answer, pb.Acknowledgement):
                known.progress, known.revision, known.unknown = progress, answer.revision, 1
                progress = min(1.0, progress + 0.001)
            else:
                assert answer.reason == "STORE_UNAVAILABLE", answer
                known.unknown += 1


def committed(service: Service) -> float:
    """Return the number of streamed updates that the service has committed since its start."""
    return service.metric("milepost_progress_updates_total", fate="committed")


def enough(service: Service, commits: int, workers: Iterable[Acknowledged]) -> Callable[[], bool]:
    """Return a condition: this number of updates is committed and every worker was answered."""
    return lambda: committed(service) >= commits and all(worker.revision for worker in workers)


@pytest.mark.parametrize(
    "count", [20, pytest.param(200, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)
async def test_acknowledged_progress_survives_a_kill(service, count):
    """A kill -9 during many streams loses no acknowledged progress, and the workers go on."""
    client = service.client("both", roles=("CALLER", "WORKER"), functions=("*",))
    ids = [client.create().id for _ in range(count)]
    progress = dict.fromkeys(ids, 0.0)
    for _ in range(2):
        acknowledged = {operation_id: Acknowledged() for operation_id in ids}
        async with AsyncExitStack() as stack:
            channel = await stack.enter_async_context(service.aio_channel())
            workers = [
                asyncio.create_task(work(Stream(client, channel), o, progress[o], acknowledged[o]))
                for o in ids
            ]
            await until(enough(service, 5 * count, acknowledged.values()), patience=MAX_WAIT_S)
            service.kill()
            await asyncio.gather(*workers)
        service.start()
        stored = histories(service.database_url)
        for operation_id, known in acknowledged.items():
            row = stored[operation_id].row
            assert 0 <= row["revision"] - known.revision <= known.unknown
            assert row["progress"] >= known.progress
            progress[operation_id] = row["progress"]
        for history in stored.values():
            history.check()


async def test_cancel_through_another_replica_is_pushed(replicas):
    """A cancel on one replica interrupts a worker on the stream of another within 1 s."""
    here, there = replicas
    worker: Client = here.worker()
    alice = there.client("alice")
    took = []
    async with streaming(here, worker) as stream, there.aio_channel() as channel:
        for _ in range(5):
            operation = alice.create()
            await stream.ask(operation.id, progress=0.5)
            response = await alice.begin(channel, "CancelOperation", operation_id=operation.id)
            start = time.monotonic()
            interruption = await stream.interruption()
            took.append(time.monotonic() - start)
            assert interruption.kind == pb.INTERRUPTION_KIND_CANCELLED
            assert interruption.revision == response.operation.revision
    assert max(took) < 1.0, took
    assert statistics.median(took) < 1.0 * slowdown()
