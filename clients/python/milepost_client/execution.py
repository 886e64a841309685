"""The execution of a function for one claimed operation: whatever happens ends it alone."""

import asyncio
import contextlib
import contextvars
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final, TypeAlias

from milepost_client.bridge import RunningLoop, is_running
from milepost_client.errors import OVER, MilepostError
from milepost_client.failure import AcknowledgeCancellation, RetryLater, unstorable
from milepost_client.operation import Operation
from milepost_client.streamed_work import StreamedWork
from milepost_client.sync import SyncWork
from milepost_client.trace_context import carried, creating_context
from milepost_client.work import Work, end_because
from milepost_client.workers import Workers

Function: TypeAlias = Callable[[Work], Awaitable[Any]] | Callable[[SyncWork], Any]
"""A function that does the work of one operation, and returns its result: a coroutine function,
which gets a `Work`, or a plain one, which runs in a thread and gets a `SyncWork`."""

log: Final = logging.getLogger("milepost_client.worker")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a function, or the exception that it raised, of any class."""

    result: Any = None
    problem: BaseException | None = None


class Execution:
    """One operation in the hands of a worker, until its function has ended or is given up.

    Create it in the task of the worker: whoever ends that one too ends the program, and not only
    this function.

    Args:
        workers: The client to work through.
        operation: The claimed operation.
        function: The function that does its work.
        patience_s: How long the function may go on after the work is over.
        on_end: Called once, when the operation occupies the worker no more.
    """

    def __init__(
        self,
        workers: Workers,
        operation: Operation,
        function: Function,
        *,
        patience_s: float,
        on_end: Callable[["Execution"], None],
    ) -> None:
        self._function: Any = function
        self._patience_s = patience_s
        self._on_end = on_end
        self._is_over = self._is_in_thread = self._is_left = self._is_interrupted = False
        self._work = StreamedWork(workers, operation, self._stop, end_timeout_s=inf)
        self._host = asyncio.current_task()
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(lambda _: self._end_unless_interrupted())

    def __repr__(self) -> str:
        return f"Execution({self._work.operation.id!r})"

    @property
    def is_cancel_requested(self) -> bool:
        """True once the owner has requested to cancel the operation."""
        return self._work.cancel_requested.is_set()

    def leave(self) -> None:
        """Cancel the function, and give its operation back when it has ended."""
        if not self._is_left:  # a second cancellation would end the release
            self._is_left = True
            self.task.cancel()

    async def give_back(self) -> None:
        """Give the operation back although its function goes on, or was interrupted."""
        await self._leave()

    def _stop(self, reason: MilepostError) -> None:
        """Stop the function, because its work is over."""
        log.info("%r was taken away: %s", self._work, reason)
        self._is_over = True
        if not self._is_in_thread:  # a thread cannot be cancelled; its next report raises
            self.task.cancel()
        asyncio.get_running_loop().call_later(self._patience_s, self._give_up)

    def _give_up(self) -> None:
        """Go on without the function, if it has not ended by now."""
        if not self.task.done():
            log.warning("%r is over, and its function goes on all the same", self._work)
            self.task.cancel()
            self._end()

    def _end_unless_interrupted(self) -> None:
        """Leave an interrupted operation to the worker, which must first end its claims."""
        if not self._is_interrupted:
            self._end()

    def _end(self) -> None:
        on_end, self._on_end = self._on_end, lambda _: None
        on_end(self)

    async def _run(self) -> None:
        try:
            with carried(creating_context(self._work.operation.traceparent)):
                outcome = await self._call()
            if self._work.is_open:
                await self._finish(outcome)
            elif outcome.problem is not None and not isinstance(outcome.problem, OVER):
                self._log(outcome.problem)  # the operation has its end already
        except asyncio.CancelledError:
            if not self._is_over:  # the worker stops, or the program ends beside it
                await self._leave()
                raise
        except KeyboardInterrupt:
            self._is_interrupted = True
            raise
        except OVER as error:
            log.info("%r was taken away: %s", self._work, error)
        except Exception:
            log.exception("%r is left unfinished", self._work)
        finally:
            self._work.detach()

    async def _leave(self) -> None:
        self._is_left = True
        await self._work.leave()

    async def _finish(self, outcome: Outcome) -> None:
        """Complete the operation with the result, or end it for the reason.

        An exception of the function is worth another attempt, and a result that cannot be stored is
        not: every attempt would end so.
        """
        problem = outcome.problem
        is_retryable = problem is not None
        if problem is None:
            try:
                await self._work.complete(outcome.result)
            except Exception as refusal:
                if not self._work.is_open:
                    raise
                problem = unstorable(refusal)
        if problem is not None:
            self._log(problem)
            await end_because(self._work, problem, retryable=is_retryable)

    def _log(self, problem: BaseException) -> None:
        if isinstance(problem, (AcknowledgeCancellation, RetryLater)):
            log.info("%r ended: %r", self._work, problem)
        else:
            log.error("%r failed", self._work, exc_info=problem)

    async def _call(self) -> Outcome:
        """Call the function, and return its outcome. Only an interruption is raised."""
        if is_coroutine_function(self._function):
            return await self._await(lambda: self._function(self._work))
        self._is_in_thread = True
        outcome = await self._call_in_thread()
        self._is_in_thread = False
        if inspect.isawaitable(outcome.result):  # a coroutine function behind a decorator
            awaitable = outcome.result
            if self._is_over:  # while the thread ran, when it could not be cancelled
                _discard(awaitable)
                return Outcome()
            return await self._await(lambda: awaitable)
        return outcome

    async def _await(self, call: Callable[[], Awaitable[Any]]) -> Outcome:
        try:
            outcome = Outcome(await call())
        except BaseException as problem:  # sys.exit() ends this operation alone
            if self._is_interruption(problem):
                raise
            outcome = Outcome(problem=problem)
        if self.task.cancelling() and not self._is_ending:  # by its function, perhaps just now
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return outcome

    @property
    def _is_ending(self) -> bool:
        """True if the function is ended from outside: by its worker, or together with it."""
        is_host_ending = self._host is None or self._host.done() or self._host.cancelling() > 0
        return self._is_left or self._is_over or is_host_ending

    def _is_interruption(self, problem: BaseException) -> bool:
        """Return True if the task is ended from outside, and not by its function."""
        match problem:
            case KeyboardInterrupt():  # Ctrl-C, which reaches whatever runs in the main thread
                return True
            case asyncio.CancelledError():
                return self.task.cancelling() > 0 and self._is_ending
            case GeneratorExit():  # also raised when the task is destroyed, after its loop
                return not is_running()
            case _:
                return False

    def _call_in_thread(self) -> "asyncio.Future[Outcome]":
        """Call the function in a thread of its own.

        A pool would run out of threads with functions that never end. The thread is a daemon: the
        process does not wait for a function whose operation it has left.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        work = SyncWork(self._work, RunningLoop(loop))

        def call() -> None:
            try:
                outcome = Outcome(self._function(work))
            except BaseException as problem:  # noqa: BLE001 - no exception may leave the thread
                outcome = Outcome(problem=problem)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, outcome)

        def settle(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=[call], name=f"milepost-{self._work.operation.id}", daemon=True
        ).start()
        return future


def _discard(awaitable: Awaitable[Any]) -> None:
    """Close what is not awaited, so that Python does not warn."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
    elif isinstance(awaitable, asyncio.Future):
        awaitable.cancel()


def is_coroutine_function(function: Function) -> bool:
    """Return True for a coroutine function, and for an object whose `__call__` is one."""
    return any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
