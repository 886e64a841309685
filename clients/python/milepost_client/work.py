"""Doing the work of an operation in one block: started before it, and ended with it."""

from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Final

from google.protobuf.message import Message

from milepost_client.errors import OVER, InvalidRequest, MilepostError
from milepost_client.operation import Json, Operation, OperationError
from milepost_client.workers import Workers

LONGEST_MESSAGE: Final = 10_000
"""How much of the text of an exception is stored, in characters."""


class Work:
    """The work on one operation, as a worker holds it inside the block.

    It is open until it is completed or failed, or the service says that it is somebody else's by
    now: cancelled, expired, or handed to another worker. What is closed takes no more.
    """

    def __init__(self, workers: Workers, operation: Operation) -> None:
        """Hold the operation, which this worker has just started."""
        self._workers = workers
        self._id = operation.id
        self._attempt = operation.attempt
        self._operation = operation
        self._result: Json | Message = None
        self._open = True

    def __repr__(self) -> str:
        return f"Work({self._id!r})"

    @property
    def operation(self) -> Operation:
        """The operation, as it stood after the last write of this block."""
        return self._operation

    @property
    def is_open(self) -> bool:
        """Tell whether there is still something to be completed or failed."""
        return self._open

    @property
    def result(self) -> Json | Message:
        """What the operation is completed with when the block ends; None means no result."""
        return self._result

    @result.setter
    def result(self, result: Json | Message) -> None:
        self._require_open()
        self._result = result

    async def progress(self, progress: float | None = None, message: str | None = None) -> None:
        """Report how far the work is. Without arguments, only a sign of life.

        Raises:
            Cancelled: Somebody has cancelled the operation. Stop; there is nothing left to end.
            StaleAttempt: Another worker has the operation. Stop likewise.
            ProgressDecrease: More was done before.
            RuntimeError: The work is completed or failed already.
        """
        self._require_open()
        await self._write(
            self._workers.update_progress(self._id, progress, message, attempt=self._attempt)
        )

    async def complete(self, result: Json | Message = None) -> None:
        """Complete the operation now, with this result, or else with the one that was set.

        When no answer comes, nobody knows whether it is completed, and it is not failed.

        Raises:
            Cancelled: Somebody has cancelled the operation.
            StaleAttempt: Another worker has the operation.
            InvalidRequest: The result is too large. The work is still open.
            TypeError: The result is neither JSON nor a message. The work is still open.
            ValueError: A number in it has no exact place in JSON. The work is still open.
            RuntimeError: The work is completed or failed already.
        """
        self._require_open()
        self._open = False
        if result is None:
            result = self._result
        try:
            await self._write(self._workers.complete(self._id, result, attempt=self._attempt))
        except (InvalidRequest, TypeError, ValueError):
            self._open = True
            raise

    async def fail(self, *errors: OperationError) -> None:
        """Fail the operation now, for these reasons. This is final: it is not tried again.

        Raises:
            Cancelled: Somebody has cancelled the operation.
            StaleAttempt: Another worker has the operation.
            RuntimeError: The work is completed or failed already.
        """
        self._require_open()
        await self._write(self._workers.fail(self._id, errors, attempt=self._attempt))
        self._open = False

    async def _write(self, call: Awaitable[Operation]) -> None:
        """Keep the operation that the call answers with. The work is over if it says so."""
        try:
            self._operation = await call
        except OVER:
            self._open = False
            raise

    def _require_open(self) -> None:
        if not self._open:
            raise RuntimeError(f"{self!r} is over: nothing more can be said about it")


@asynccontextmanager
async def ending(work: Work) -> AsyncGenerator[Work, None]:
    """Complete the operation when the block ends, or fail it when the block raises."""
    try:
        yield work
        if work.is_open:
            await work.complete()
    except BaseException as problem:
        if work.is_open:
            await _fail(work, problem)
        raise


async def _fail(work: Work, problem: BaseException) -> None:
    """Fail the operation for the problem. When that fails too, the problem says so."""
    text = (str(problem).strip() or repr(problem))[:LONGEST_MESSAGE]
    message = text.encode("utf-8", "backslashreplace").decode()
    try:
        await work.fail(OperationError(type(problem).__name__, message))
    except MilepostError as refusal:
        problem.add_note(f"The operation {work.operation.id} was not failed: {refusal}")
