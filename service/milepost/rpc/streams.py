"""One progress stream on the wire: updates in, and what the worker must know out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry
from milepost.domain.errors import InvalidRequest, MilepostError, Violation
from milepost.domain.interruption import InterruptionKind
from milepost.domain.operation import ID_PATTERN, OperationId
from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from milepost.rpc.convert import Fields
from milepost.rpc.interceptors.errors import log_refusal
from milepost.rpc.logged_ids import logged_ids
from milepost.tracking.reports import Acknowledgement, Interruption, Item, Refused, Update

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from milepost.domain.limits import Limits
    from milepost.rpc.call import RpcCall
    from milepost.tracking.progress_streams import ProgressStream

KINDS: Final[Mapping[InterruptionKind, pb.InterruptionKind.ValueType]] = {
    kind: pb.InterruptionKind.Value(f"INTERRUPTION_KIND_{kind}") for kind in InterruptionKind
}
NAMED_CHARACTERS: Final = 255
"""Of an id that is none, in the answer to it."""


async def converse(
    requests: AsyncIterator[Any], call: RpcCall, stream: ProgressStream, limits: Limits
) -> None:
    """Take updates and answer them until the worker has said all and was told all."""
    listening = asyncio.create_task(_listen(requests, stream, limits))
    listening.add_done_callback(lambda _: stream.finish())
    try:
        while (item := await stream.next()) is not None:
            await call.context.write(_response(item, call))
        await listening  # it may have been refused
    finally:
        listening.cancel()
        await asyncio.wait({listening})


async def _listen(requests: AsyncIterator[Any], stream: ProgressStream, limits: Limits) -> None:
    async for request in requests:
        try:
            update = _update(request, limits)
        except InvalidRequest as error:
            stream.refuse(getattr(request, "operation_id", "")[:NAMED_CHARACTERS], error)
        else:
            stream.offer(update)
        if stream.is_full:
            await stream.room()


def _update(request: Any, limits: Limits) -> Update:
    if not isinstance(request, pb.StreamProgressRequest):  # its bytes were no such message
        raise InvalidRequest(Violation("request", "is not a message of its type"))
    return _ordinary(request, limits) or _checked(request, limits)


def _ordinary(request: pb.StreamProgressRequest, limits: Limits) -> Update | None:
    """Return the update if nothing in it could be wrong or must be clamped.

    Most are so, and there are very many: looking at each field as `Fields` does costs three times
    as much.
    """
    operation_id, progress, message = request.operation_id, request.progress, request.message
    attempt = request.attempt if request.HasField("attempt") else None
    if (
        0.0 < progress <= 1.0
        and (attempt is None or attempt > 0)
        and len(message) <= limits.message_length
        and "\0" not in message
        and ID_PATTERN.fullmatch(operation_id) is not None
    ):
        kept = message if message or request.HasField("message") else None
        return Update(OperationId(operation_id), attempt, progress, kept)
    return None


def _checked(request: pb.StreamProgressRequest, limits: Limits) -> Update:
    fields = Fields(request, limits)
    update = Update(
        id=fields.operation_id(),
        attempt=fields.positive("attempt"),
        progress=fields.progress(),
        message=fields.message(),
    )
    fields.done()
    return update


def _response(item: Item, call: RpcCall) -> pb.StreamProgressResponse:
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
        case Refused():
            return pb.StreamProgressResponse(error=_error(item.id, item.error, call))


def _error(operation_id: str, error: Exception, call: RpcCall) -> pb.UpdateError:
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
