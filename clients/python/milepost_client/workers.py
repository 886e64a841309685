"""The verbs of workers: start an operation, report its progress, complete or fail it."""

from collections.abc import Iterable
from types import TracebackType

from google.protobuf.message import Message

from milepost_client.connection import Connection
from milepost_client.convert import from_operation, to_any, to_duration, to_errors
from milepost_client.gen.milepost.v1 import worker_service_pb2 as pb
from milepost_client.operation import Json, Operation, OperationError
from milepost_client.pace import Duration
from milepost_client.progress_stream import ProgressStream


class Workers(Connection):
    """What a worker can do, one call at a time. `work` does it all in one block.

    `attempt` and `expected_revision` make a write conditional: it is refused with `StaleAttempt`
    or `RevisionMismatch` unless the operation has them still. Every write may raise
    `OperationNotFound`, and `IllegalTransition`, as `Cancelled` where somebody has cancelled the
    operation.
    """

    _stream: ProgressStream | None = None

    @property
    def _progress_stream(self) -> ProgressStream:
        """The stream that all work of this client reports on; opened by the first report."""
        if self._stream is None:
            self._stream = ProgressStream(self._calls)
        return self._stream

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the progress stream, once the last report is acknowledged, and the channel."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()
        await super().__aexit__(kind, problem, traceback)

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
            functions: Their exact names.
            max_operations: How many at most, up to 100.
            lease: How long each is held until progress renews it; 30 s by default.
            worker: Your name, for people who look for you.
            timeout: How long to wait for work, within the deadline of a call.
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
        """Start the operation, which is pending. `attempt` of the answer is yours.

        Args:
            operation_id: The operation.
            worker: Your name, for people who look for you.
            progress: How much is done already.
            expected_revision: Start it only if it has not moved since this revision.
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
        attempt: int | None = None,
        expected_revision: int | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Report how far the work is. It is stored when this returns; a lease is renewed.

        Args:
            operation_id: The operation.
            progress: How much is done, from 0.0 to 1.0; without it, as much as before.
            message: What is being done, in words; without it, the earlier one stays.
            attempt: Report it only if this is the attempt still.
            expected_revision: Report it only if the operation has not moved since this revision.
            request_id: Makes the call repeatable.

        Raises:
            ProgressDecrease: More was done before.
        """
        calls = self._calls
        request = pb.UpdateProgressRequest(
            operation_id=operation_id,
            progress=progress,
            message=message,
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
        """Complete the operation, which is being worked on, with its result.

        Args:
            operation_id: The operation.
            result: Anything JSON can say, or a protobuf message; None means that there is none.
            attempt: Complete it only if this is the attempt still.
            expected_revision: Complete it only if it has not moved since this revision.
            request_id: Makes the call repeatable.

        Raises:
            TypeError: The result is neither JSON nor a message.
            ValueError: A number in it has no exact place in JSON.
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
        attempt: int | None = None,
        expected_revision: int | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Fail the operation. This is final: it is not tried again.

        Args:
            operation_id: The operation.
            errors: Why, at least one.
            attempt: Fail it only if this is the attempt still.
            expected_revision: Fail it only if it has not moved since this revision.
            request_id: Makes the call repeatable.
        """
        calls = self._calls
        request = pb.FailOperationRequest(
            operation_id=operation_id,
            errors=to_errors(errors),
            attempt=attempt,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        answer = await calls.send(calls.workers.FailOperation, request)
        return from_operation(answer.operation, replayed=answer.replayed)
