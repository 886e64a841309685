"""The loops whose speed is measured: with the client, and with the bare stub."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from milepost_client import Milepost, Work, Worker
from milepost_client.gen.milepost.v1 import operation_service_pb2, worker_service_pb2
from milepost_client.gen.milepost.v1.operation_service_pb2_grpc import OperationServiceStub
from milepost_client.gen.milepost.v1.worker_service_pb2_grpc import WorkerServiceStub

OPERATION_ID: Final = "op_0123456789abcdef01234567"
INTERVAL_S: Final = 0.1
"""Time between two reports of one operation."""
DEADLINE_S: Final = 10.0


async def bench(command: dict[str, Any]) -> dict[str, float]:
    """Run one loop, and return how often it went round, in which time and CPU time."""
    loop = {
        "unary": _unary,
        "unary_stub": _unary_stub,
        "stream": _stream,
        "stream_stub": _stream_stub,
    }[command["loop"]]
    return await loop(command)


async def _measure(rounds: Callable[[int], Awaitable[int]], concurrency: int) -> dict[str, float]:
    """Return the sum of the rounds of so many tasks, and what they took."""
    begun, cpu = time.monotonic(), time.process_time()
    counts = await asyncio.gather(*map(rounds, range(concurrency)))
    return {
        "calls": sum(counts),
        "seconds": time.monotonic() - begun,
        "cpu_seconds": time.process_time() - cpu,
    }


async def _repeat(call: Callable[[], Awaitable[Any]], seconds: float) -> int:
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        await call()
        count += 1
    return count


async def _paced(report: Callable[[float], Awaitable[Any]], number: int, command: Any) -> int:
    """Report once in each interval, each operation at a moment of its own."""
    await asyncio.sleep(INTERVAL_S * number / command["concurrency"])
    rounds = int(command["seconds"] / INTERVAL_S)
    due = time.monotonic()
    for count in range(rounds):
        await report(count / rounds)
        due += INTERVAL_S
        await asyncio.sleep(max(due - time.monotonic(), 0))
    return rounds


async def _unary(command: dict[str, Any]) -> dict[str, float]:
    async with Milepost(command["address"], api_key=command["api_key"]) as milepost:
        return await _measure(
            lambda _: _repeat(lambda: milepost.get(OPERATION_ID), command["seconds"]),
            command["concurrency"],
        )


async def _unary_stub(command: dict[str, Any]) -> dict[str, float]:
    metadata = (("authorization", f"Bearer {command['api_key']}"),)
    request = operation_service_pb2.GetOperationRequest(operation_id=OPERATION_ID)
    async with grpc.aio.insecure_channel(command["address"]) as channel:
        stub = OperationServiceStub(channel)

        async def get() -> None:
            await stub.GetOperation(request, timeout=DEADLINE_S, metadata=metadata)

        return await _measure(lambda _: _repeat(get, command["seconds"]), command["concurrency"])


async def _stream(command: dict[str, Any]) -> dict[str, float]:
    begun: asyncio.Queue[Work] = asyncio.Queue()
    finished = asyncio.Event()

    async def work_on(work: Work) -> None:
        begun.put_nowait(work)
        await finished.wait()

    async with Milepost(command["address"], api_key=command["api_key"]) as milepost:
        concurrency = command["concurrency"]
        worker = Worker(milepost, {command["functions"][0]: work_on}, concurrency=concurrency)
        running = asyncio.create_task(worker.run())
        works = [await begun.get() for _ in range(concurrency)]
        measured = await _measure(
            lambda number: _paced(works[number].progress, number, command), concurrency
        )
        finished.set()
        worker.stop()
        await running
        return measured


async def _stream_stub(command: dict[str, Any]) -> dict[str, float]:
    metadata = (("authorization", f"Bearer {command['api_key']}"),)
    async with grpc.aio.insecure_channel(command["address"]) as channel:
        call = WorkerServiceStub(channel).StreamProgress(metadata=metadata)
        writing = asyncio.Lock()

        async def read() -> None:
            async for _ in call:
                pass

        async def report(number: int, progress: float) -> None:
            async with writing:
                await call.write(
                    worker_service_pb2.StreamProgressRequest(
                        operation_id=f"op_{number:024x}", attempt=1, progress=progress
                    )
                )

        reading = asyncio.create_task(read())
        measured = await _measure(
            lambda number: _paced(lambda value: report(number, value), number, command),
            command["concurrency"],
        )
        await call.done_writing()
        await reading
        return measured
