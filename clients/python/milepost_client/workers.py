"""The calls of workers: claim or start an operation, report progress, end it or give it back."""

import asyncio
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from google.protobuf.message import Message

from milepost_client.connection import Connection
from milepost_client.convert import from_operation, to_any, to_duration, to_errors
from milepost_client.errors import MilepostError
from milepost_client.gen.milepost.v1 import worker_service_pb2 as pb
from milepost_client.operation import Json, Operation, OperationError
from milepost_client.pace import Duration
from milepost_client.progress_stream import ProgressStream
from milepost_client.retry import until_final

GIVE_BACK_TIMEOUT_S: Final = 3.0
"""How long the end of a program may wait for its releases."""
STOPPED: Final = "the worker has stopped"
"""The reason of these releases."""
MAX_RELEASES: Final = 100
"""Releases at once, so that the end of a large worker does not overload the service."""


class Workers(Connection):
    """The calls of a worker, one by one. `work` does all of them in one block.

    `attempt` and `expected_revision` make a write conditional: it is refused with `StaleAttempt`
    or `RevisionMismatch` unless the operation still has them. Every write may raise
    `OperationNotFound`, `IllegalTransition`, and `Cancelled` if the operation was cancelled.
    """

    _stream: ProgressStream | None = None
    _release_slots: asyncio.Semaphore | None = None

    @property
    def _progress_stream(self) -> ProgressStream:
        """The stream that all work of this client shares. Use it in the event loop."""
        if self._stream is None:
            self._stream = ProgressStream(self._calls)
        return self._stream

    async def _give_back(
        self,
        operation_id: str,
        attempt: int,
        *,
        checkpoint: Message | None = None,
        is_cancelled: bool = False,
    ) -> None:
        """Release the attempt at the end of a worker, best effort, within `GIVE_BACK_TIMEOUT_S`.

        Args:
            operation_id: The operation.
            attempt: The attempt of this worker.
            checkpoint: State to store before.
            is_cancelled: A cancel is requested: acknowledge it instead.

        Raises:
            MilepostError: It was refused.
            TimeoutError: It was not answered in time.
        """
        if self._release_slots is None:
            self._release_slots = asyncio.Semaphore(MAX_RELEASES)
        held: dict[str, Any] = {"attempt": attempt, "request_id": str(uuid.uuid4())}
        async with asyncio.timeout(GIVE_BACK_TIMEOUT_S), self._release_slots:
            if checkpoint is not None and not is_cancelled:
                with suppress(MilepostError):  # it is lost, the operation is not
                    await until_final(
                        lambda: self.update_progress(
                            operation_id, checkpoint=checkpoint, attempt=attempt
                        ),
                        timeout_s=GIVE_BACK_TIMEOUT_S,
                    )
            await until_final(
                lambda: (
                    self.acknowledge_cancellation(operation_id, **held)
                    if is_cancelled
                    else self.release(operation_id, reason=STOPPED, **held)
                ),
                timeout_s=GIVE_BACK_TIMEOUT_S,
            )

    async def close(self) -> None:
        """Release the operations of workers, store the last reports, and close the channel.

        Calls in flight are cancelled.
        """
        for release in tuple(self._before_close):
            await release()
        stream, self._stream = self._stream, None
        if stream is not None and not self._is_forked:
            await stream.close()
        await super().close()

    async def claim(
        self,
        functions: Iterable[str],
        *,
        max_operations: int = 1,
        lease: Duration | None = None,
        worker: str | None = None,
        timeout: Duration = 0,
    ) -> list[Operation]:
        """Claim pending operations of these functions, each held until its lease runs out.

        Args:
            functions: The exact names of the functions.
            max_operations: The maximum number of operations, 1 to 100.
            lease: The time for which each is held until progress renews it; 30 s by default.
            worker: The name of this worker, shown to operators.
            timeout: The time to wait for work, within the deadline of a call.
        """
        calls = self._calls
        request = pb.ClaimOperationsRequest(
            functions=functions,
            max_operations=max_operations,
            lease=to_duration(lease),
            worker=worker,
            timeout=to_duration(timeout),
        )
        answer = await calls.send(calls.workers.ClaimOperations, request)
        return [from_operation(operation) for operation in answer.operations]

    async def start(
        self,
        operation_id: str,
        *,
        worker: str | None = None,
        progress: float | None = None,
        expected_revision: int | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Start the pending operation. The answer holds the `attempt` of this worker.

        Args:
            operation_id: The operation.
            worker: The name of this worker, shown to operators.
            progress: The progress made already.
            expected_revision: Start it only if it still has this revision.
            request_id: Makes the call repeatable.
        """
        calls = self._calls
        request = pb.StartOperationRequest(
            operation_id=operation_id,
            worker=worker,
            progress=progress,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        answer = await calls.send(calls.workers.StartOperation, request)
        return from_operation(answer.operation, replayed=answer.replayed)

    async def update_progress(
        self,
        operation_id: str,
        progress: float | None = None,
        message: str | None = None,
        *,
        checkpoint: Json | Message = None,
        attempt: int | None = None,
        expected_revision: int | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Report progress. It is stored when this returns, and a lease is renewed.

        Args:
            operation_id: The operation.
            progress: The progress, from 0.0 to 1.0; without it, the earlier one stays.
            message: A description of the present step; without it, the earlier one stays.
            checkpoint: State for the next attempt, a JSON value or a protobuf message, at most
                64 KiB; without it, the earlier one stays.
            attempt: Report only if this is still the attempt.
            expected_revision: Report only if the operation still has this revision.
            request_id: Makes the call repeatable.

        Raises:
            ProgressDecrease: An earlier report named more progress.
        """
        calls = self._calls
        request = pb.UpdateProgressRequest(
            operation_id=operation_id,
            progress=progress,
            message=message,
            checkpoint=to_any(checkpoint),
            attempt=attempt,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        answer = await calls.send(calls.workers.UpdateProgress, request)
        return from_operation(answer.operation, replayed=answer.replayed)

    async def complete(
        self,
        operation_id: str,
        result: Json | Message = None,
        *,
        attempt: int | None = None,
        expected_revision: int | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Complete the operation, which is in progress, with its result.

        Args:
            operation_id: The operation.
            result: Any JSON value, or a protobuf message; None means no result.
            attempt: Complete it only if this is still the attempt.
            expected_revision: Complete it only if it still has this revision.
            request_id: Makes the call repeatable.

        Raises:
            TypeError: The result is neither JSON nor a message.
            ValueError: A number in it has no exact place in JSON, or it is nested too deep, or
                contains itself.
        """
        calls = self._calls
        request = pb.CompleteOperationRequest(
            operation_id=operation_id,
            result=to_any(result),
            attempt=attempt,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        answer = await calls.send(calls.workers.CompleteOperation, request)
        return from_operation(answer.operation, replayed=answer.replayed)

    async def fail(
        self,
        operation_id: str,
        errors: Iterable[OperationError],
        *,
        retryable: bool = False,
        retry_delay: Duration | None = None,
        attempt: int | None = None,
        expected_revision: int | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Fail the operation, or only this attempt of it.

        Args:
            operation_id: The operation.
            errors: The reasons, at least one.
            retryable: Another attempt may succeed: the operation waits for it, if one is left.
                Otherwise the failure is final.
            retry_delay: The time until that attempt, at most 24 hours, instead of the pause of the
                retry policy.
            attempt: Fail it only if this is still the attempt.
            expected_revision: Fail it only if it still has this revision.
            request_id: Makes the call repeatable.
        """
        calls = self._calls
        request = pb.FailOperationRequest(
            operation_id=operation_id,
            errors=to_errors(errors),
            retryable=retryable,
            retry_delay=to_duration(retry_delay),
            attempt=attempt,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        answer = await calls.send(calls.workers.FailOperation, request)
        return from_operation(answer.operation, replayed=answer.replayed)

    async def release(
        self,
        operation_id: str,
        *,
        delay: Duration | None = None,
        reason: str | None = None,
        attempt: int | None = None,
        expected_revision: int | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Give the operation, which is in progress, back to workers. This is no failed attempt.

        Args:
            operation_id: The operation.
            delay: The time until it can be claimed again, at most 1 h; without it, it can be
                claimed at once, before later operations of its owner.
            reason: The reason, shown to operators.
            attempt: Release it only if this is still the attempt.
            expected_revision: Release it only if it still has this revision.
            request_id: Makes the call repeatable.
        """
        calls = self._calls
        request = pb.ReleaseOperationRequest(
            operation_id=operation_id,
            delay=to_duration(delay),
            reason=reason,
            attempt=attempt,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        answer = await calls.send(calls.workers.ReleaseOperation, request)
        return from_operation(answer.operation, replayed=answer.replayed)

    async def acknowledge_cancellation(
        self,
        operation_id: str,
        *,
        attempt: int | None = None,
        expected_revision: int | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """End the operation, whose cancel was requested: this worker has stopped.

        Args:
            operation_id: The operation.
            attempt: End it only if this is still the attempt.
            expected_revision: End it only if it still has this revision.
            request_id: Makes the call repeatable.

        Raises:
            CancellationNotRequested: No cancel was requested.
        """
        calls = self._calls
        request = pb.AcknowledgeCancellationRequest(
            operation_id=operation_id,
            attempt=attempt,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        answer = await calls.send(calls.workers.AcknowledgeCancellation, request)
        return from_operation(answer.operation, replayed=answer.replayed)
