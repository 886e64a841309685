"""One progress stream on the wire: updates in, acknowledgements and interruptions out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.api.convert import UNDECODABLE, Fields
from milepost.api.errors import log_refusal
from milepost.api.logged_ids import logged_ids
from milepost.domain.errors import InvalidRequest, MilepostError
from milepost.domain.interruption import InterruptionKind
from milepost.domain.operation import ID_PATTERN, OperationId
from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from milepost.tracking.progress_messages import (
    Acknowledgement,
    Interruption,
    Item,
    ProgressUpdate,
    UpdateError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from milepost.api.call import ApiCall
    from milepost.domain.limits import Limits
    from milepost.tracking.progress_stream import ProgressStream

KINDS: Final[Mapping[InterruptionKind, pb.InterruptionKind.ValueType]] = {
    kind: pb.InterruptionKind.Value(f"INTERRUPTION_KIND_{kind}") for kind in InterruptionKind
}
REPORTED_ID_CHARACTERS: Final = 255
"""Maximum length of a malformed id in its error item."""


async def converse(
    requests: AsyncIterator[Any], call: ApiCall, stream: ProgressStream, limits: Limits
) -> None:
    """Read updates and write their answers until both directions have ended."""
    reading = asyncio.create_task(_read(requests, stream, limits))
    reading.add_done_callback(lambda _: stream.finish())
    try:
        while (item := await stream.next()) is not None:
            await call.write(_response(item, call))
        await reading  # raises if the reading was refused
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _read(requests: AsyncIterator[Any], stream: ProgressStream, limits: Limits) -> None:
    async for request in requests:
        try:
            update = _update(request, limits)
        except InvalidRequest as error:
            stream.refuse(getattr(request, "operation_id", "")[:REPORTED_ID_CHARACTERS], error)
        else:
            stream.offer(update)
        if stream.is_full:
            await stream.wait_for_room()


def _update(request: Any, limits: Limits) -> ProgressUpdate:
    if not isinstance(request, pb.StreamProgressRequest):  # undecodable bytes
        raise InvalidRequest(UNDECODABLE)
    return _ordinary(request, limits) or _checked(request, limits)


def _ordinary(request: pb.StreamProgressRequest, limits: Limits) -> ProgressUpdate | None:
    """Return the update if all fields are valid and none must be clamped, else None.

    Almost all updates are like that, and there are very many: `Fields` checks each field by itself
    and costs three times as much.
    """
    operation_id, progress, message = request.operation_id, request.progress, request.message
    attempt = request.attempt if request.HasField("attempt") else None
    if (
        0.0 < progress <= 1.0
        and (attempt is None or attempt > 0)
        and len(message) <= limits.message_length
        and "\0" not in message
        and ID_PATTERN.fullmatch(operation_id) is not None
        and not request.HasField("checkpoint")
    ):
        kept = message if message or request.HasField("message") else None
        return ProgressUpdate(OperationId(operation_id), attempt, progress, kept)
    return None


def _checked(request: pb.StreamProgressRequest, limits: Limits) -> ProgressUpdate:
    fields = Fields(request, limits)
    update = ProgressUpdate(
        id=fields.operation_id(),
        attempt=fields.positive("attempt"),
        progress=fields.progress(),
        message=fields.message(),
        checkpoint=fields.checkpoint(),
    )
    fields.done()
    return update


def _response(item: Item, call: ApiCall) -> pb.StreamProgressResponse:
    match item:
        case Acknowledgement():
            acknowledgement = pb.Acknowledgement(
                operation_id=item.id, revision=item.revision, attempt=item.attempt
            )
            if item.lease_expire_time is not None:
                acknowledgement.lease_expire_time.FromDatetime(item.lease_expire_time)
            return pb.StreamProgressResponse(acknowledgement=acknowledgement)
        case Interruption():
            interruption = pb.Interruption(
                operation_id=item.id, kind=KINDS[item.kind], revision=item.revision
            )
            return pb.StreamProgressResponse(interruption=interruption)
        case UpdateError():
            return pb.StreamProgressResponse(error=_error(item.id, item.error, call))


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
