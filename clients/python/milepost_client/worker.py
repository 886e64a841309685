"""A worker: claims operations of some functions, and runs the function of each."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Final

from milepost_client.client import Milepost
from milepost_client.errors import LimitReached, MilepostError, UndecodableAnswer
from milepost_client.execution import Execution, Function
from milepost_client.loop_monitor import monitor_loop
from milepost_client.operation import Operation
from milepost_client.pace import Backoff, Duration, seconds
from milepost_client.retry import is_temporary
from milepost_client.signals import stopping

DEFAULT_LEASE_S: Final = 30.0
DEFAULT_GRACE_S: Final = 30.0
CLAIM_TIMEOUT_S: Final = 8.0
"""How long one claim waits for work: less than the deadline of a call."""
MAX_CONCURRENCY: Final = 1_000
"""The operations that one progress stream carries."""
MAX_PER_CLAIM: Final = 100
SURVIVED: Final = (LimitReached, UndecodableAnswer)
"""The refusals after which a worker claims again, besides temporary ones."""
CLOSED: Final = "the client was closed while its worker ran"
MAX_PATIENCE_S: Final = 5.0
"""How long a cancelled function may still occupy its worker."""

log: Final = logging.getLogger("milepost_client.worker")


class Worker:
    """A worker that does the work of some functions until it is stopped.

    ::

        async def transcode(work: Work) -> dict:
            await work.progress(0.5, "halfway")
            return {"frames": 1200}

        async with Milepost("127.0.0.1:7450", api_key=key) as milepost:
            worker = Worker(milepost, functions={"video.transcode": transcode})
            await worker.run(handle_signals=True)

    The return value of a function completes its operation. After an exception, even `SystemExit`,
    the operation waits for its next attempt, until it has failed `max_attempts` times;
    `PermanentFailure` fails it at once, and `RetryLater` chooses the pause. `Work.checkpoint` saves
    state for the next attempt. Leases are renewed while the function runs, and until the service
    has accepted the end of the operation, which is tried again while the service is unavailable or
    limits the rate.

    When a cancel with a grace is requested, `Work.cancel_requested` is set. The function stops in
    its own way, and raises `AcknowledgeCancellation`, or returns, or raises another exception.

    When the operation is cancelled, expires, or is lost to another worker, a coroutine function is
    cancelled (``asyncio.CancelledError``), and the next `work.progress` of a plain function raises
    the error. A function that goes on for 5 s all the same is given up: the worker takes the next
    operation.

    A coroutine function must not block the event loop, which also renews the leases; a loop that
    was blocked for most of a lease is logged as a warning. A plain function may block.

    Args:
        milepost: The open client to work through.
        functions: The functions by their names.
        concurrency: The maximum number of operations at once, at most 1,000.
        name: The name of this worker, shown to operators.
        lease: The time after which another worker gets an operation of a dead worker.
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
        lease: Duration = DEFAULT_LEASE_S,
        grace: Duration = DEFAULT_GRACE_S,
    ) -> None:
        if not functions:
            raise ValueError("a worker needs functions")
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise ValueError(f"concurrency must lie between 1 and {MAX_CONCURRENCY}")
        self._milepost = milepost
        self._functions = dict(functions)
        self._concurrency = concurrency
        self._name = name
        self._lease_s = seconds(lease)
        self._grace_s = seconds(grace)
        self._executions: set[Execution] = set()
        self._has_room = asyncio.Event()
        self._stopping = asyncio.Event()
        self._is_client_closing = False

    def stop(self) -> None:
        """Claim no more, wait for the running functions within the grace, and let `run` return."""
        self._stopping.set()

    async def run(self, *, handle_signals: bool = False) -> None:
        """Work until `stop` is called.

        An operation whose function has not ended after the grace is released: another worker gets
        it at once, and it is no failed attempt. If `run` itself is cancelled, such as at the end of
        the program, or the client is closed, all operations are released at once. Releases are
        best effort: without one, another worker gets the operation when its lease runs out.

        Args:
            handle_signals: Call `stop` at the first SIGTERM or SIGINT; the second one ends the
                program as usual. For scripts that only run a worker, in the main thread. Inside a
                server or a framework, which handles signals itself, call `stop` at its shutdown.

        Raises:
            MilepostError: Claims are refused for good: the API key is not valid, or not granted
                one of the functions.
            RuntimeError: The client was closed while the worker ran.
            ValueError: `handle_signals` was given outside of the main thread.
        """
        grace_s = 0.0
        with stopping(self.stop) if handle_signals else contextlib.nullcontext():
            monitor = asyncio.create_task(monitor_loop(self._lease_s))
            self._milepost._before_close.add(self._leave_client)  # noqa: SLF001 - for workers
            try:
                await self._claim_until_stopped()
                if self._is_client_closing:
                    raise RuntimeError(CLOSED)
                grace_s = self._grace_s
            except MilepostError:
                grace_s = self._grace_s
                raise
            finally:
                try:
                    await self._drain(grace_s)
                finally:
                    self._milepost._before_close.discard(self._leave_client)  # noqa: SLF001
                    monitor.cancel()

    async def _claim_until_stopped(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            free = self._concurrency - len(self._executions)
            if not free:
                self._has_room.clear()
                await self._unless_stopped(self._has_room.wait())
                continue
            try:
                operations = await self._unless_stopped(self._claim(min(free, MAX_PER_CLAIM)))
            except MilepostError as error:
                if not is_temporary(error) and not isinstance(error, SURVIVED):
                    raise
                log.warning("no work was claimed: %s", error)
                await self._unless_stopped(asyncio.sleep(backoff.pause_s(error)))
                continue
            backoff.reset()
            for operation in operations or ():
                self._begin(operation)

    async def _unless_stopped(self, awaitable: Any) -> Any:
        """Return the value of the awaitable, or None if the worker is stopped before."""
        stopped = asyncio.create_task(self._stopping.wait())
        task = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait({stopped, task}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return None
            if task.cancelled():  # a closed channel cancels its calls
                raise RuntimeError(CLOSED)
            return task.result()
        finally:
            stopped.cancel()
            task.cancel()

    async def _claim(self, max_operations: int) -> list[Operation]:
        return await self._milepost.claim(
            self._functions,
            max_operations=max_operations,
            lease=self._lease_s,
            worker=self._name,
            timeout=CLAIM_TIMEOUT_S,
        )

    def _begin(self, operation: Operation) -> None:
        execution = Execution(
            self._milepost,
            operation,
            self._functions[operation.function],
            patience_s=min(self._grace_s, MAX_PATIENCE_S),
            on_end=self._end,
        )
        self._executions.add(execution)

    def _end(self, execution: Execution) -> None:
        self._executions.discard(execution)
        self._has_room.set()

    async def _drain(self, grace_s: float) -> None:
        """Wait for the running functions within the grace, and release the other operations."""
        try:
            if self._executions and grace_s:
                await asyncio.wait(self._tasks(), timeout=grace_s)
        finally:
            await self._leave()

    async def _leave_client(self) -> None:
        """Release all operations, because the client is closed."""
        self._is_client_closing = True
        self.stop()
        await self._leave()

    async def _leave(self) -> None:
        """Cancel the functions, and release their operations; those that go on, after 5 s."""
        # A requested cancel first: its owner waits for the acknowledgement.
        for execution in sorted(self._executions, key=lambda one: not one.is_cancel_requested):
            execution.leave()
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=MAX_PATIENCE_S)
        remaining = tuple(self._executions)
        for execution in remaining:
            if not execution.task.done():
                log.warning("%r does not end though it is cancelled", execution)
        await asyncio.gather(*(execution.give_back() for execution in remaining))

    def _tasks(self) -> "set[asyncio.Task[None]]":
        return {execution.task for execution in self._executions} - {asyncio.current_task()}
