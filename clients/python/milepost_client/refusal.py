"""The conversion of a refused call to an error: by reason, or by gRPC code if that is unknown.

The service sends a ``google.rpc.Status`` with every refusal: ErrorInfo with the reason and the
values, BadRequest with the violated fields, RetryInfo with the pause that it asks for.
"""

import contextlib
from collections.abc import Mapping
from typing import Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus

from milepost_client import errors
from milepost_client.errors import MilepostError, Violation
from milepost_client.operation import Status

DOMAIN: Final = "milepost"
STATUS: Final = "grpc-status-details-bin"
"""The key of the status in the trailing metadata."""

BY_REASON: Final[Mapping[str, type[MilepostError]]] = {
    "INVALID_REQUEST": errors.InvalidRequest,
    "PROGRESS_DECREASE": errors.ProgressDecrease,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "API_KEY_NOT_FOUND": errors.ApiKeyNotFound,
    "OPERATION_NOT_FOUND": errors.OperationNotFound,
    "OPERATION_EXPIRED": errors.OperationExpired,
    "OPERATION_DELETED": errors.OperationDeleted,
    "DELIVERY_NOT_FOUND": errors.DeliveryNotFound,
    "SIGNING_SECRET_NOT_FOUND": errors.SigningSecretNotFound,
    "ILLEGAL_TRANSITION": errors.IllegalTransition,
    "CANCELLATION_NOT_REQUESTED": errors.CancellationNotRequested,
    "REVISION_MISMATCH": errors.RevisionMismatch,
    "STALE_ATTEMPT": errors.StaleAttempt,
    "LOST_RACE": errors.LostRace,
    "REVISION_AHEAD": errors.RevisionAhead,
    "UNIQUE_KEY_TAKEN": errors.UniqueKeyTaken,
    "REQUEST_ID_REUSED": errors.RequestIdReused,
    "WEBHOOKS_NOT_CONFIGURED": errors.WebhooksNotConfigured,
    "RATE_LIMITED": errors.RateLimited,
    "QUOTA_EXCEEDED": errors.QuotaExceeded,
    "STREAM_FULL": errors.StreamFull,
    "STORE_UNAVAILABLE": errors.StoreUnavailable,
    "IDENTITY_PROVIDER_UNAVAILABLE": errors.IdentityProviderUnavailable,
    "OVERLOADED": errors.Overloaded,
    "DRAINING": errors.Draining,
    "INTERNAL": errors.InternalError,
    "IDS_EXHAUSTED": errors.IdsExhausted,
}
"""The class of every reason that the service gives."""

BY_CODE: Final[Mapping[grpc.StatusCode, type[MilepostError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.LimitReached,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: errors.NotAvailable,
    grpc.StatusCode.INTERNAL: errors.InternalError,
}
"""The class of a reason of a newer service, and of an answer of gRPC itself."""

Detail = TypeVar("Detail", bound=Message)
Response = TypeVar("Response")


def rebuild(failure: grpc.aio.AioRpcError | MilepostError) -> MilepostError:
    """Return the error that the refusal stands for; one of this client unchanged."""
    if isinstance(failure, MilepostError):
        return failure
    status = _status(failure)
    info = _detail(status, ErrorInfo)
    if info.domain != DOMAIN:
        info = ErrorInfo()
    retry = _detail(status, RetryInfo)
    error = error_class(info.reason, info.metadata, failure.code())(
        failure.details() or f"the call ended with {failure.code().name}",
        code=failure.code(),
        reason=info.reason,
        metadata=info.metadata,
        violations=[
            Violation(violation.field, violation.description)
            for violation in _detail(status, BadRequest).field_violations
        ],
        retry_after=retry.retry_delay.ToTimedelta() if retry.HasField("retry_delay") else None,
    )
    error.__cause__ = failure
    return error


def decoded(response: Response | None) -> Response:
    """Return the response of an accepted call; for one that it cannot decode, gRPC returns None."""
    if response is None:
        raise errors.UndecodableAnswer(
            "the service accepted the call, but its response cannot be decoded",
            code=grpc.StatusCode.INTERNAL,
        )
    return response


def error_class(
    reason: str, facts: Mapping[str, str], code: grpc.StatusCode | None = None
) -> type[MilepostError]:
    """Return the class of a refusal, by its reason, or by its code where that is unknown."""
    if reason == "ILLEGAL_TRANSITION" and facts.get("status") == Status.CANCELLED:
        return errors.Cancelled
    known = BY_REASON.get(reason)
    return known or (BY_CODE.get(code, MilepostError) if code else MilepostError)


def _status(failure: grpc.aio.AioRpcError) -> RpcStatus:
    """Return the status of the service, or an empty one if it is missing or undecodable."""
    packed = failure.trailing_metadata().get(STATUS)
    try:
        return RpcStatus.FromString(packed) if isinstance(packed, bytes) else RpcStatus()
    except DecodeError:
        return RpcStatus()


def _detail(status: RpcStatus, kind: type[Detail]) -> Detail:
    """Return the first detail of the kind, or an empty one."""
    for detail in status.details:
        found = kind()
        with contextlib.suppress(DecodeError):
            if detail.Unpack(found):
                return found
    return kind()
