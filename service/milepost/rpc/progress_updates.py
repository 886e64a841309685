"""Updates of progress streams: from the messages of a worker to domain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from milepost.domain.errors import InvalidRequest, Violation
from milepost.domain.operation import ID_PATTERN, OperationId
from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from milepost.rpc.convert import UNDECODABLE, Fields
from milepost.tracking.progress_messages import ProgressUpdate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from milepost.domain.limits import Limits

    AnyUpdate = pb.StreamProgressRequest | pb.ProgressUpdate
    """A message with the fields of an update."""

MAX_UPDATES: Final = 1_000
"""Updates of one request."""


async def separated(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield every update of a request by itself, and a request without `updates` as it is.

    So an update costs a worker the same however it is sent, and those before one that exceeds its
    rate are taken. A request that breaks the rules of `updates` stays whole, to be refused.
    """
    async for request in requests:
        if _has_only_updates(request):
            for update in request.updates:
                yield update
        else:
            yield request


def _has_only_updates(request: Any) -> bool:
    if not isinstance(request, pb.StreamProgressRequest):  # undecodable bytes
        return False
    return 0 < len(request.updates) <= MAX_UPDATES and len(request.ListFields()) == 1


def update_from(message: Any, limits: Limits) -> ProgressUpdate:
    """Return the update of a message of `separated`.

    Raises:
        InvalidRequest: a field is malformed, or the request breaks the rules of `updates`.
    """
    if isinstance(message, pb.ProgressUpdate):
        return _ordinary(message, limits) or _checked(message, limits)
    if not isinstance(message, pb.StreamProgressRequest):
        raise InvalidRequest(UNDECODABLE)
    if message.updates:
        raise InvalidRequest(_violation(len(message.updates)))
    return _ordinary(message, limits) or _checked(message, limits)


def _violation(count: int) -> Violation:
    if count > MAX_UPDATES:
        return Violation("updates", f"must be at most {MAX_UPDATES} updates, found {count}")
    return Violation("updates", "must be empty in a request with other fields")


def _ordinary(message: AnyUpdate, limits: Limits) -> ProgressUpdate | None:
    """Return the update if all fields are valid and none must be clamped, else None.

    Almost all updates are like that, and there are very many: `Fields` checks each field by itself
    and costs three times as much.
    """
    operation_id, progress, text = message.operation_id, message.progress, message.message
    attempt = message.attempt if message.HasField("attempt") else None
    if (
        0.0 < progress <= 1.0
        and (attempt is None or attempt > 0)
        and len(text) <= limits.message_length
        and "\0" not in text
        and ID_PATTERN.fullmatch(operation_id) is not None
        and not message.HasField("checkpoint")
    ):
        kept = text if text or message.HasField("message") else None
        return ProgressUpdate(OperationId(operation_id), attempt, progress, kept)
    return None


def _checked(message: AnyUpdate, limits: Limits) -> ProgressUpdate:
    fields = Fields(message, limits)
    update = ProgressUpdate(
        id=fields.operation_id(),
        attempt=fields.positive("attempt"),
        progress=fields.progress(),
        message=fields.message(),
        checkpoint=fields.checkpoint(),
    )
    fields.done()
    return update
