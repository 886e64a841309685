"""One progress stream on the wire: updates in, acknowledgements and interruptions out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.api.errors import log_refusal
from milepost.api.logged_ids import logged_ids
from milepost.api.messages import set_timestamp
from milepost.api.progress_updates import update_from
from milepost.domain.errors import InvalidRequest, MilepostError
from milepost.domain.interruption import InterruptionKind
from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from milepost.tracking.progress_messages import (
    Acknowledgement,
    Interruption,
    Item,
    UpdateError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from milepost.api.call import ApiCall, StreamingCall
    from milepost.domain.limits import Limits
    from milepost.tracking.progress_stream import ProgressStream

KINDS: Final[Mapping[InterruptionKind, pb.InterruptionKind.ValueType]] = {
    kind: pb.InterruptionKind.Value(f"INTERRUPTION_KIND_{kind}") for kind in InterruptionKind
}
REPORTED_ID_CHARACTERS: Final = 255
"""Maximum length of a malformed id in its error item."""
MAX_ACKNOWLEDGEMENTS: Final = 1_000
"""Acknowledgements of one response: 64 KiB."""


async def converse(
    requests: AsyncIterator[Any], call: StreamingCall, stream: ProgressStream, limits: Limits
) -> None:
    """Read updates and write their answers until both directions have ended."""
    reader = _Reader(stream, limits)
    reading = asyncio.create_task(reader.read(requests))
    reading.add_done_callback(lambda _: stream.finish())
    try:
        while (item := await stream.next()) is not None:
            if reader.has_batches and isinstance(item, Acknowledgement):
                more = stream.next_acknowledgements(MAX_ACKNOWLEDGEMENTS - 1)
                await call.write(_acknowledgements(item, *more))
            else:
                await call.write(_response(item, call))
        await reading  # raises if the reading was refused
    finally:
        reading.cancel()
        await asyncio.wait({reading})


class _Reader:
    """Hands the updates of a worker to its stream."""

    def __init__(self, stream: ProgressStream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self.has_batches = False
        """True once the worker has sent `updates`: it also reads `acknowledgements`."""

    async def read(self, messages: AsyncIterator[Any]) -> None:
        stream = self._stream
        async for message in messages:
            if isinstance(message, pb.ProgressUpdate):
                self.has_batches = True
            try:
                update = update_from(message, self._limits)
            except InvalidRequest as error:
                stream.refuse(getattr(message, "operation_id", "")[:REPORTED_ID_CHARACTERS], error)
            else:
                stream.offer(update)
            if stream.is_full:
                await stream.wait_for_room()


def _response(item: Item, call: ApiCall) -> pb.StreamProgressResponse:
    match item:
        case Acknowledgement():
            response = pb.StreamProgressResponse()
            _fill(response.acknowledgement, item)
            return response
        case Interruption():
            interruption = pb.Interruption(
                operation_id=item.id, kind=KINDS[item.kind], revision=item.revision
            )
            return pb.StreamProgressResponse(interruption=interruption)
        case UpdateError():
            return pb.StreamProgressResponse(error=_error(item.id, item.error, call))


def _acknowledgements(*items: Acknowledgement) -> pb.StreamProgressResponse:
    response = pb.StreamProgressResponse()
    for item in items:
        _fill(response.acknowledgements.add(), item)
    return response


def _fill(acknowledgement: pb.Acknowledgement, item: Acknowledgement) -> None:
    acknowledgement.operation_id = item.id
    acknowledgement.revision = item.revision
    acknowledgement.attempt = item.attempt
    if item.lease_expire_time is not None:
        set_timestamp(acknowledgement.lease_expire_time, item.lease_expire_time)


def _error(operation_id: str, error: Exception, call: ApiCall) -> pb.UpdateError:
    if isinstance(error, MilepostError):
        refused = pb.UpdateError(
            operation_id=operation_id,
            reason=error.reason,
            message=str(error),
            metadata=dict(error.facts),
        )
        log_refusal(error, call, refused)
        return refused
    trace_id = telemetry.current_trace_id()
    failed = pb.UpdateError(
        operation_id=operation_id,
        reason="INTERNAL",
        message=f"internal error, trace id {trace_id}",
        metadata={"trace_id": trace_id},
    )
    telemetry.record_defect(error, call.authenticated, logged_ids(failed))
    return failed
