"""A worker: claims operations of some functions, and runs what does their work."""

import asyncio
import contextlib
import inspect
import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias

from milepost_client.bridge import LoopThread
from milepost_client.client import Milepost
from milepost_client.errors import (
    OVER,
    DeadlineExceeded,
    LimitReached,
    MilepostError,
    Unavailable,
)
from milepost_client.operation import Operation
from milepost_client.pace import Duration, growing_pauses, seconds
from milepost_client.streamed_work import StreamedWork
from milepost_client.sync import SyncWork
from milepost_client.work import Work, ending

LEASE: Final = 30.0
GRACE: Final = 30.0
"""In seconds, unless told otherwise."""
POLL: Final = 8.0
"""How many seconds one claim waits for work: less than the deadline of a call."""
MOST_AT_ONCE: Final = 1_000
"""Operations that one progress stream carries."""
MOST_PER_CLAIM: Final = 100
TRY_AGAIN: Final = (Unavailable, LimitReached, DeadlineExceeded)
"""What a claim may be answered with without anything being wrong with it."""

Function: TypeAlias = Callable[[Work], Awaitable[Any]] | Callable[[SyncWork], Any]
"""Does the work of one operation, and returns its result: a coroutine function, which gets a
`Work`, or a plain one, which runs in a thread and gets a `SyncWork`."""

log: Final = logging.getLogger("milepost_client.worker")


class Worker:
    """Does the work of some functions until it is stopped.

    ::

        async def transcode(work: Work) -> dict:
            await work.progress(0.5, "halfway")
            return {"frames": 1200}

        async with Milepost("127.0.0.1:7450", api_key=key) as milepost:
            await Worker(milepost, functions={"video.transcode": transcode}).run()

    What a function returns completes its operation, and what it raises fails it. When the
    operation is cancelled, expires, or is lost to another worker, a coroutine function is
    cancelled (``asyncio.CancelledError``); a plain one gets the error from its next
    `work.progress`. Leases are renewed while the function runs.

    Args:
        milepost: The client to work through, which is open.
        functions: What does the work of each function, by its name.
        concurrency: How many operations are worked on at once, at most 1,000.
        name: The name of this worker, for people who look for it.
        lease: How long an operation is held when the worker dies.
        grace: How long functions may go on after `stop`.

    Raises:
        ValueError: There are no functions, or the concurrency is out of range.
    """

    def __init__(
        self,
        milepost: Milepost,
        functions: Mapping[str, Function],
        *,
        concurrency: int = 10,
        name: str | None = None,
        lease: Duration = LEASE,
        grace: Duration = GRACE,
    ) -> None:
        if not functions:
            raise ValueError("a worker needs functions")
        if not 1 <= concurrency <= MOST_AT_ONCE:
            raise ValueError(f"concurrency must lie between 1 and {MOST_AT_ONCE}")
        self._milepost = milepost
        self._functions = dict(functions)
        self._concurrency = concurrency
        self._name = name
        self._lease = lease
        self._grace = seconds(grace)
        self._tasks: dict[asyncio.Task[None], StreamedWork] = {}
        self._stopping = asyncio.Event()
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="milepost-worker")

    def stop(self) -> None:
        """Claim no more, let what runs go on for the time of grace, and let `run` return."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`, SIGTERM or SIGINT.

        Signals reach the main thread of a process alone, and not on Windows: whoever runs a
        worker elsewhere calls `stop`.

        What has not ended when the time of grace is over is let go: its lease runs out, and
        another worker gets it.

        Raises:
            MilepostError: Claims are refused for good: the API key is not valid, or not granted
                one of the functions.
        """
        async with self._signals():
            try:
                await self._claim_until_stopped()
            finally:
                await self._drain()

    @contextlib.asynccontextmanager
    async def _signals(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        heard = sys.platform != "win32" and threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGTERM, signal.SIGINT) if heard else ()
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def _claim_until_stopped(self) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        pauses = growing_pauses(first=0.05, most=2.0)
        try:
            while not stopping.done():
                free = self._concurrency - len(self._tasks)
                if not free:
                    await _first(stopping, *self._tasks)
                    continue
                claiming = asyncio.create_task(self._claim(min(free, MOST_PER_CLAIM)))
                await _first(stopping, claiming)
                if not claiming.done():
                    claiming.cancel()
                    break
                try:
                    operations = claiming.result()
                    pauses = growing_pauses(first=0.05, most=2.0)
                except TRY_AGAIN as error:
                    log.warning("no work was claimed: %s", error)
                    pause = asyncio.create_task(asyncio.sleep(next(pauses)))
                    await _first(stopping, pause)
                    pause.cancel()
                    continue
                for operation in operations:
                    self._begin(operation)
        finally:
            stopping.cancel()

    async def _claim(self, most: int) -> list[Operation]:
        return await self._milepost.claim(
            self._functions,
            max_operations=most,
            lease=self._lease,
            worker=self._name,
            timeout=POLL,
        )

    def _begin(self, operation: Operation) -> None:
        function = self._functions[operation.function]
        is_plain = not inspect.iscoroutinefunction(function)
        task: asyncio.Task[None]

        def stop(_: MilepostError) -> None:
            if not is_plain:  # a thread cannot be cancelled; it is told by its next report
                task.cancel()

        work = StreamedWork(
            self._milepost,
            self._milepost._progress_stream,  # noqa: SLF001 - shared by all work of the client
            operation,
            stop,
        )
        task = asyncio.create_task(self._work(function, work, plain=is_plain))
        self._tasks[task] = work
        task.add_done_callback(self._tasks.pop)

    async def _work(self, function: Function, work: StreamedWork, *, plain: bool) -> None:
        """Do the work of one operation. Whatever happens inside ends it alone."""
        try:
            async with ending(work):
                result = await self._call(function, work, plain=plain)
                if result is not None and work.is_open:
                    work.result = result
        except asyncio.CancelledError:
            if work.is_open:
                raise
            log.info("%r was taken away", work)
        except OVER as error:
            log.info("%r was taken away: %s", work, error)
        except Exception:
            log.exception("%r failed", work)
        finally:
            work.unfollow()

    async def _call(self, function: Any, work: Work, *, plain: bool) -> Any:
        if not plain:
            return await function(work)
        loop = asyncio.get_running_loop()
        blocking = SyncWork(work, LoopThread.of(loop))
        return await loop.run_in_executor(self._threads, function, blocking)

    async def _drain(self) -> None:
        """Let what runs come to its end in time, and let go of the rest."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=self._grace)
        left = dict(self._tasks)
        for task, work in left.items():
            work.let_go()
            task.cancel()
        if left:
            await asyncio.wait(set(left))
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _first(*tasks: "asyncio.Task[Any]") -> None:
    await asyncio.wait(set(tasks), return_when=asyncio.FIRST_COMPLETED)
