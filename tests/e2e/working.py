"""A Python `Worker` beside a test, and the states of operations that a test waits for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from unittest import mock

from milepost_client import Milepost, Operation, Worker, workers
from tests.e2e.service import Service

SOON_S: Final = 40.0
POLL_S: Final = 0.01


@asynccontextmanager
async def working(
    service: Service,
    function: str | Mapping[str, Any],
    does: Any = None,
    *,
    client: Milepost | None = None,
    **settings: Any,
) -> AsyncIterator[Worker]:
    """Run a worker for one function, or for several, beside the block; stop it after the block.

    Its releases have more than 3 s, because a busy machine may stand still for as long.
    """
    functions = {function: does} if isinstance(function, str) else function
    key = service.api_key("wally", roles=("WORKER",), functions=("test.*",))
    async with Milepost(service.address, api_key=key) as own:
        worker = Worker(client or own, functions=functions, **settings)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            with mock.patch.object(workers, "GIVE_BACK_TIMEOUT_S", SOON_S):
                await asyncio.wait_for(running, SOON_S)


async def until_progress(caller: Milepost, operation_id: str, progress: float) -> None:
    """The operation has come so far."""
    await until_so(caller, operation_id, lambda operation: operation.progress == progress)


async def until_so(
    caller: Milepost, operation_id: str, condition: Callable[[Operation], bool]
) -> None:
    """The operation is as the condition says."""
    async with asyncio.timeout(SOON_S):
        while not condition(await caller.get(operation_id)):  # noqa: ASYNC110 - of the service
            await asyncio.sleep(POLL_S)
