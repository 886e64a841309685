"""The work on one operation: progress and the end; as a block, ended together with the block."""

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from google.protobuf.message import Message

from milepost_client.convert import to_any
from milepost_client.errors import OVER, InvalidRequest, LimitReached, MilepostError
from milepost_client.failure import describe
from milepost_client.operation import Json, Operation, OperationError
from milepost_client.retry import until_final
from milepost_client.workers import Workers

END_TIMEOUT_S: Final = 300.0
"""How long the end of an operation is tried again while the service refuses it for a while."""


class Work:
    """The work on one operation, as a worker holds it inside the block.

    It is open until it is completed or failed, or until the service says that this worker no
    longer holds the operation: it was cancelled, has expired, or went to another worker.
    """

    def __init__(
        self, workers: Workers, operation: Operation, *, end_timeout_s: float = END_TIMEOUT_S
    ) -> None:
        """Hold the operation, which this worker has just started."""
        self._workers = workers
        self._id = operation.id
        self._attempt = operation.attempt
        self._operation = operation
        self._result: Json | Message = None
        self._open = True
        self._end_timeout_s = end_timeout_s

    def __repr__(self) -> str:
        return f"Work({self._id!r})"

    @property
    def operation(self) -> Operation:
        """The operation, as it stood after the last write of this block."""
        return self._operation

    @property
    def is_open(self) -> bool:
        """True until the operation is completed or failed, or must not be worked on any more."""
        return self._open

    @property
    def result(self) -> Json | Message:
        """The result with which the block completes the operation; None means no result."""
        return self._result

    @result.setter
    def result(self, result: Json | Message) -> None:
        self._require_open()
        self._result = result

    async def progress(self, progress: float | None = None, message: str | None = None) -> None:
        """Report the progress of the work. Without arguments, only renew the lease.

        Raises:
            Cancelled: The operation was cancelled. Stop; there is nothing left to complete.
            StaleAttempt: Another worker has the operation. Stop likewise.
            ProgressDecrease: An earlier report named more progress.
            RuntimeError: The work is completed or failed already.
        """
        self._require_open()
        await self._write(
            self._workers.update_progress(self._id, progress, message, attempt=self._attempt)
        )

    async def complete(self, result: Json | Message = None) -> None:
        """Complete the operation now, with this result, or else with the one that was set.

        While the service refuses that only for a while, or cannot be reached, it is tried again,
        for 5 minutes. If there is no final answer by then, the outcome is unknown, and the
        operation is not failed.

        Raises:
            Cancelled: The operation was cancelled.
            StaleAttempt: Another worker has the operation.
            InvalidRequest: The result is too large. The work is still open.
            TypeError: The result is neither JSON nor a message. The work is still open.
            ValueError: A number in the result has no exact place in JSON, or the result is nested
                too deep, or contains itself. The work is still open.
            RuntimeError: The work is completed or failed already.
        """
        self._require_open()
        packed = to_any(self._result if result is None else result)
        request_id = str(uuid.uuid4())
        await self._end(
            lambda: self._workers.complete(
                self._id, packed, attempt=self._attempt, request_id=request_id
            )
        )

    async def fail(self, *errors: OperationError) -> None:
        """Fail the operation now, for these reasons. This is final. Tried again as `complete` is.

        Raises:
            Cancelled: The operation was cancelled.
            StaleAttempt: Another worker has the operation.
            InvalidRequest: An error is malformed or too large. The work is still open.
            RuntimeError: The work is completed or failed already.
        """
        self._require_open()
        request_id = str(uuid.uuid4())
        await self._end(
            lambda: self._workers.fail(
                self._id, errors, attempt=self._attempt, request_id=request_id
            )
        )

    def _try_once(self) -> None:
        """Try the end of the operation only once from now on: the program ends."""
        self._end_timeout_s = 0.0

    async def _end(self, send: Callable[[], Awaitable[Operation]]) -> None:
        """End the operation. The work stays open if what was sent cannot be stored."""
        self._open = False
        try:
            self._operation = await until_final(send, timeout_s=self._end_timeout_s)
        except MilepostError as error:
            self._open = _is_unstorable(error)
            raise
        except (TypeError, ValueError):  # it could not be sent
            self._open = True
            raise

    async def _write(self, call: Awaitable[Operation]) -> None:
        """Keep the operation that the call returns. The work is over if the refusal says so."""
        try:
            self._operation = await call
        except OVER:
            self._open = False
            raise

    def _require_open(self) -> None:
        if not self._open:
            raise RuntimeError(f"{self!r} is over: nothing more can be reported about it")


def _is_unstorable(error: MilepostError) -> bool:
    """Return True if another content would have been accepted.

    A message above the limit of gRPC is refused by gRPC itself, which gives no reason.
    """
    return isinstance(error, InvalidRequest) or (type(error) is LimitReached and not error.reason)


@asynccontextmanager
async def ending(work: Work) -> AsyncGenerator[None, None]:
    """Complete the operation when the block ends, or fail it when the block raises."""
    try:
        yield
        if work.is_open:
            await work.complete()
    except BaseException as problem:
        if work.is_open:
            if not isinstance(problem, Exception):  # interrupted: the program may be ending
                work._try_once()  # noqa: SLF001 - for blocks alone
            await fail_because(work, problem)
        raise


async def fail_because(work: Work, problem: BaseException) -> None:
    """Fail the operation because of the problem, which gets a note if that is refused."""
    try:
        try:
            await work.fail(describe(problem))
        except InvalidRequest as refusal:
            await work.fail(OperationError("InvalidError", f"The error was refused: {refusal}"))
    except MilepostError as refusal:
        problem.add_note(f"The operation {work.operation.id} was not failed: {refusal}")
