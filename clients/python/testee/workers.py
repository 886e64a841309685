"""Workers whose functions do what the next command says."""

import asyncio
from collections.abc import Iterable
from typing import Any

from milepost_client import (
    AcknowledgeCancellation,
    Milepost,
    MilepostError,
    PermanentFailure,
    RetryLater,
    Work,
    Worker,
)


class HeldWork:
    """Work whose function has begun, and waits for its end."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.stopped: str | None = None
        """Class of the reason for which the function was stopped."""
        self._outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def end(self, outcome: Any) -> None:
        """Let the function return the value, or raise the exception."""
        if self._outcome.done():
            return
        if isinstance(outcome, BaseException):
            self._outcome.set_exception(outcome)
        else:
            self._outcome.set_result(outcome)

    async def outcome(self) -> Any:
        """Return the value with which the function ends, or raise its exception."""
        try:
            return await self._outcome
        except asyncio.CancelledError:
            self.stopped = await self._reason()
            raise

    async def _reason(self) -> str:
        """Return the class of the error that the next report raises."""
        try:
            await self.work.progress()
        except MilepostError as error:
            return type(error).__name__
        return "WorkerStopped"


class RemoteWorker:
    """A worker with a queue of the functions that have begun."""

    def __init__(self, milepost: Milepost, functions: Iterable[str], options: Any) -> None:
        self._begun: asyncio.Queue[HeldWork] = asyncio.Queue()
        self._worker = Worker(milepost, dict.fromkeys(functions, self._begin), **options)
        self._running = asyncio.create_task(self._worker.run())

    async def next(self) -> HeldWork:
        """Return the next work whose function has begun.

        Raises:
            RuntimeError: The worker has ended.
            MilepostError: It has ended for this reason.
        """
        asked = asyncio.create_task(self._begun.get())
        await asyncio.wait({asked, self._running}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            asked.cancel()
            self._running.result()
            raise RuntimeError("the worker has ended")
        return asked.result()

    async def stop(self) -> None:
        """Stop the worker, and wait until it has ended."""
        self._worker.stop()
        await self._running

    async def _begin(self, work: Work) -> Any:
        held = HeldWork(work)
        self._begun.put_nowait(held)
        return await held.outcome()


def exception_of(command: dict[str, Any]) -> Exception:
    """Return the exception that the function of the command raises."""
    message = command.get("message", "failed")
    match command["kind"]:
        case "permanent":
            return PermanentFailure(message, code=command.get("code"))
        case "retry_later":
            return RetryLater(command["delay"], message)
        case "acknowledge":
            return AcknowledgeCancellation()
        case _:
            return RuntimeError(message)
