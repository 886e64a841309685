"""The work on one operation: progress and the end; as a block, ended together with the block."""

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from google.protobuf.message import Message

from milepost_client.convert import to_any, to_checkpoint, to_errors
from milepost_client.errors import OVER, CancellationNotRequested, InvalidRequest, MilepostError
from milepost_client.failure import (
    AcknowledgeCancellation,
    PermanentFailure,
    RetryLater,
    describe,
    refused,
)
from milepost_client.operation import Json, Operation, OperationError
from milepost_client.pace import Duration
from milepost_client.retry import END_TIMEOUT_S, is_unexplained, until_final
from milepost_client.workers import Workers

LARGE_BYTES: Final = 1 << 20
"""Size above which a limit that is reached without a reason is that of the size of a message."""


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
        self._resumed_from = operation.checkpoint
        self._cancel_requested = asyncio.Event()
        self._cancel_requested_in_threads = threading.Event()
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
    def resumed_from(self) -> Any:
        """The last checkpoint that an earlier attempt has saved, or None.

        JSON is a plain value, and any other message the ``google.protobuf.Any`` that holds it.
        """
        return self._resumed_from

    @property
    def cancel_requested(self) -> asyncio.Event:
        """The event of a requested cancel: stop, and clean up within the grace.

        Then raise `AcknowledgeCancellation`, or end in any other way. `Work` has an
        ``asyncio.Event``, and `SyncWork` a ``threading.Event``. Without a progress stream, it is
        set by the next report.
        """
        return self._cancel_requested

    @property
    def result(self) -> Json | Message:
        """The result with which the block completes the operation; None means no result."""
        return self._result

    @result.setter
    def result(self, result: Json | Message) -> None:
        self._require_open()
        self._result = result

    async def progress(
        self,
        progress: float | None = None,
        message: str | None = None,
        *,
        checkpoint: Json | Message = None,
    ) -> None:
        """Report the progress of the work. Without arguments, only renew the lease.

        Args:
            progress: The progress, from 0.0 to 1.0; without it, the earlier one stays.
            message: A description of the present step; without it, the earlier one stays.
            checkpoint: State for the next attempt, stored together with the progress; without it,
                the earlier one stays.

        Raises:
            Cancelled: The operation was cancelled. Stop; there is nothing left to complete.
            StaleAttempt: Another worker has the operation. Stop likewise.
            ProgressDecrease: An earlier report named more progress.
            TypeError: The checkpoint is neither JSON nor a message.
            ValueError: The checkpoint has more than 64 KiB, or no exact place in JSON.
            RuntimeError: The work is completed or failed already.
        """
        self._require_open()
        packed = to_checkpoint(checkpoint)
        await self._write(
            self._workers.update_progress(
                self._id, progress, message, checkpoint=packed, attempt=self._attempt
            )
        )

    async def checkpoint(self, checkpoint: Json | Message) -> None:
        """Save state from which another attempt goes on: it gets this as `resumed_from`.

        Only the newest one is kept, at most 64 KiB, until the operation ends. It travels like a
        report of progress, with the errors of one; `flush` waits until it is stored.
        """
        await self.progress(checkpoint=checkpoint)

    async def flush(self) -> None:
        """Return when everything that was reported so far is stored.

        On a progress stream, which stores reports of one operation about once per second, that may
        take a second. Otherwise every report is stored already.

        Raises:
            MilepostError: A report was refused, as `progress` says.
            RuntimeError: The work is completed or failed already.
        """
        self._require_open()

    async def complete(self, result: Json | Message = None) -> None:
        """Complete the operation now, with this result, or else with the one that was set.

        While the service refuses that only for a while, or cannot be reached, it is tried again:
        in a block for 5 minutes, in a `Worker` until a final answer. If there is no final answer
        by then, the outcome is unknown, and the operation is not failed. A refusal without a
        reason, as of a proxy, is final if it lasts for 5 minutes: the work is still open then.

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
            ),
            size=packed.ByteSize() if packed is not None else 0,
        )

    async def fail(
        self,
        *errors: OperationError,
        retryable: bool = False,
        retry_delay: Duration | None = None,
    ) -> None:
        """Fail the operation now, for these reasons.

        It is tried again as `complete` is: in a block for 5 minutes, in a `Worker` until a final
        answer.

        Args:
            errors: The reasons, at least one.
            retryable: Another attempt may succeed: the operation waits for it, if one is left.
                Otherwise the failure is final.
            retry_delay: The time until that attempt, at most 24 hours, instead of the pause of the
                retry policy.

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
                self._id,
                errors,
                retryable=retryable,
                retry_delay=retry_delay,
                attempt=self._attempt,
                request_id=request_id,
            ),
            size=sum(error.ByteSize() for error in to_errors(errors)),
        )

    async def acknowledge_cancellation(self) -> None:
        """End the operation as CANCELLED now, as was requested: the work has stopped.

        It is tried again as `complete` is.

        Raises:
            CancellationNotRequested: No cancel was requested. The work is still open.
            Cancelled: The grace is over, and the operation was cancelled.
            StaleAttempt: Another worker has the operation.
            RuntimeError: The work is completed or failed already.
        """
        self._require_open()
        request_id = str(uuid.uuid4())
        await self._end(
            lambda: self._workers.acknowledge_cancellation(
                self._id, attempt=self._attempt, request_id=request_id
            ),
            size=0,
        )

    def _try_once(self) -> None:
        """Try the end of the operation only once from now on: the program ends."""
        self._end_timeout_s = 0.0

    async def _end(self, send: Callable[[], Awaitable[Operation]], *, size: int) -> None:
        """End the operation. The work stays open if what was sent cannot be stored."""
        self._open = False
        try:
            self._operation = await until_final(
                send, timeout_s=self._end_timeout_s, is_large=size > LARGE_BYTES
            )
        except MilepostError as error:
            self._open = _is_unstorable(error)
            raise
        except (TypeError, ValueError):  # it could not be sent
            self._open = True
            raise

    async def _write(self, call: Awaitable[Operation]) -> None:
        """Keep the operation that the call returns. The work is over if the refusal says so."""
        try:
            self._keep(await call)
        except OVER:
            self._open = False
            raise

    def _keep(self, operation: Operation) -> None:
        """Keep the operation, which may say that a cancel is requested."""
        self._operation = operation
        if operation.cancel_request_time is not None:
            self._request_cancel()

    def _request_cancel(self) -> None:
        self._cancel_requested.set()
        self._cancel_requested_in_threads.set()

    def _require_open(self) -> None:
        if not self._open:
            raise RuntimeError(f"{self!r} is over: nothing more can be reported about it")


def _is_unstorable(error: MilepostError) -> bool:
    """Return True if another content may be accepted.

    A message that is too large for gRPC, or for a proxy, is refused without a reason.
    """
    return isinstance(error, (InvalidRequest, CancellationNotRequested)) or is_unexplained(error)


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
            await end_because(work, problem)
        raise


async def end_because(work: Work, problem: BaseException, *, retryable: bool = False) -> None:
    """End the work because of the problem, which gets a note if that is refused.

    Args:
        work: The work, which is open.
        problem: The exception. `PermanentFailure`, `RetryLater` and `AcknowledgeCancellation`
            choose the end themselves.
        retryable: Another attempt may succeed after any other exception.
    """
    try:
        if isinstance(problem, AcknowledgeCancellation):
            problem = await _acknowledge(work, problem)
        if work.is_open:
            await _fail(work, problem, retryable=retryable)
    except MilepostError as refusal:
        problem.add_note(f"The operation {work.operation.id} was not failed: {refusal}")


async def _acknowledge(work: Work, problem: BaseException) -> BaseException:
    """Acknowledge the cancel; return the reason of a failure if none was requested."""
    try:
        await work.acknowledge_cancellation()
    except CancellationNotRequested as refusal:
        return refusal
    return problem


async def _fail(work: Work, problem: BaseException, *, retryable: bool) -> None:
    delay = problem.delay if isinstance(problem, RetryLater) else None
    is_retryable = delay is not None or (retryable and not isinstance(problem, PermanentFailure))
    try:
        await work.fail(describe(problem), retryable=is_retryable, retry_delay=delay)
    except Exception as refusal:
        if not work.is_open:
            raise
        await work.fail(refused(refusal))
