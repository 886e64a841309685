"""WorkerService: the RPCs of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.api.convert import Fields
from milepost.api.messages import fill, fill_result
from milepost.api.streams import converse
from milepost.gen.milepost.v1 import worker_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from milepost.api.call import ApiCall, StreamingCall
    from milepost.domain.limits import Limits
    from milepost.tracking.claimer import Claimer
    from milepost.tracking.progress_streams import ProgressStreams
    from milepost.tracking.tracker import Tracker


class WorkerService:
    """Convert each request, await its use case, convert the result."""

    def __init__(
        self, tracker: Tracker, claimer: Claimer, streams: ProgressStreams, limits: Limits
    ) -> None:
        """Serve `tracker`, `claimer` and `streams`; check requests against `limits`."""
        self._streams = streams
        self._tracker = tracker
        self._claimer = claimer
        self._limits = limits

    async def ClaimOperations(
        self, request: pb.ClaimOperationsRequest, call: ApiCall
    ) -> pb.ClaimOperationsResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        functions, max_operations = fields.functions(), fields.max_operations()
        lease, worker, timeout = fields.duration("lease"), fields.name("worker"), fields.timeout()
        fields.done()
        by = call.principal
        claimed = await self._claimer.claim(
            by,
            functions,
            max_operations=max_operations,
            lease=lease,
            worker=worker,
            timeout=timeout,
            time_left=call.seconds_left,
        )
        response = pb.ClaimOperationsResponse()
        for operation in claimed:
            fill(response.operations.add(), operation, by.subject)
        return response

    async def StartOperation(
        self, request: pb.StartOperationRequest, call: ApiCall
    ) -> pb.StartOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, preconditions = fields.operation_id(), fields.preconditions()
        progress, worker = fields.progress(), fields.name("worker")
        fields.done()
        by = call.principal
        changed = await self._tracker.start(
            by, operation_id, preconditions, progress=progress, worker=worker
        )
        return fill_result(pb.StartOperationResponse(), changed, by.subject)

    async def UpdateProgress(
        self, request: pb.UpdateProgressRequest, call: ApiCall
    ) -> pb.UpdateProgressResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, preconditions = fields.operation_id(), fields.preconditions()
        progress, message = fields.progress(), fields.message()
        checkpoint = fields.checkpoint()
        fields.done()
        by = call.principal
        changed = await self._tracker.update_progress(
            by,
            operation_id,
            preconditions,
            progress=progress,
            message=message,
            checkpoint=checkpoint,
        )
        return fill_result(pb.UpdateProgressResponse(), changed, by.subject, full=False)

    async def StreamProgress(
        self, request_iterator: AsyncIterator[pb.StreamProgressRequest], call: StreamingCall
    ) -> None:
        """See the proto."""
        async with self._streams.open(call.principal) as stream:
            await converse(request_iterator, call, stream, self._limits)

    async def CompleteOperation(
        self, request: pb.CompleteOperationRequest, call: ApiCall
    ) -> pb.CompleteOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, preconditions, result = (
            fields.operation_id(),
            fields.preconditions(),
            fields.result(),
        )
        fields.done()
        by = call.principal
        changed = await self._tracker.complete(by, operation_id, preconditions, result=result)
        return fill_result(pb.CompleteOperationResponse(), changed, by.subject)

    async def FailOperation(
        self, request: pb.FailOperationRequest, call: ApiCall
    ) -> pb.FailOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, preconditions, errors = (
            fields.operation_id(),
            fields.preconditions(),
            fields.errors(),
        )
        retry_delay = fields.retry_delay()
        fields.done()
        by = call.principal
        changed = await self._tracker.fail(
            by,
            operation_id,
            preconditions,
            errors=errors,
            retryable=request.retryable,
            retry_delay=retry_delay,
        )
        return fill_result(pb.FailOperationResponse(), changed, by.subject)

    async def AcknowledgeCancellation(
        self, request: pb.AcknowledgeCancellationRequest, call: ApiCall
    ) -> pb.AcknowledgeCancellationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, preconditions = fields.operation_id(), fields.preconditions()
        fields.done()
        by = call.principal
        changed = await self._tracker.acknowledge_cancellation(by, operation_id, preconditions)
        return fill_result(pb.AcknowledgeCancellationResponse(), changed, by.subject)

    async def ReleaseOperation(
        self, request: pb.ReleaseOperationRequest, call: ApiCall
    ) -> pb.ReleaseOperationResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        operation_id, preconditions = fields.operation_id(), fields.preconditions()
        delay, reason = fields.duration("delay"), fields.reason()
        fields.done()
        by = call.principal
        changed = await self._tracker.release(
            by, operation_id, preconditions, delay=delay, reason=reason
        )
        return fill_result(pb.ReleaseOperationResponse(), changed, by.subject)
