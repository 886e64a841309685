"""Errors: every domain error becomes one status, in one place.

The order of `MAPPING` is from the special to the general; a test checks that every leaf of the
tree in ``domain/errors/`` finds its entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

from milepost.access.audit import record_refusal
from milepost.api.logged_ids import ids_of
from milepost.api.refusals import Refusal
from milepost.domain.errors import (
    ApiKeyNotFound,
    CancellationNotRequested,
    Conflict,
    DeliveryNotFound,
    IdsExhausted,
    IllegalTransition,
    InvalidRequest,
    LimitReached,
    MilepostError,
    OperationNotFound,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    RequestIdReused,
    RevisionAhead,
    SigningSecretNotFound,
    StreamFull,
    Unauthenticated,
    Unavailable,
    UniqueKeyTaken,
    WebhooksNotConfigured,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.rpc import status_pb2

    from milepost.access.call import Call
    from milepost.access.method import Method

MAPPING: Final[dict[type[MilepostError], grpc.StatusCode]] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    OperationNotFound: grpc.StatusCode.NOT_FOUND,
    DeliveryNotFound: grpc.StatusCode.NOT_FOUND,
    SigningSecretNotFound: grpc.StatusCode.NOT_FOUND,
    ApiKeyNotFound: grpc.StatusCode.NOT_FOUND,
    IllegalTransition: grpc.StatusCode.FAILED_PRECONDITION,
    CancellationNotRequested: grpc.StatusCode.FAILED_PRECONDITION,
    Conflict: grpc.StatusCode.ABORTED,
    RevisionAhead: grpc.StatusCode.OUT_OF_RANGE,
    RequestIdReused: grpc.StatusCode.ALREADY_EXISTS,
    UniqueKeyTaken: grpc.StatusCode.ALREADY_EXISTS,
    WebhooksNotConfigured: grpc.StatusCode.FAILED_PRECONDITION,
    LimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StreamFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    IdsExhausted: grpc.StatusCode.INTERNAL,
}


def code_of(error: MilepostError, method: Method | None = None) -> grpc.StatusCode:
    """Return the code of an error of a method: that of its nearest ancestor in `MAPPING`."""
    if method is not None and method.limits_are_temporary and isinstance(error, LimitReached):
        return grpc.StatusCode.UNAVAILABLE
    return next(MAPPING[kind] for kind in type(error).__mro__ if kind in MAPPING)


def status_of(error: MilepostError, method: Method | None = None) -> status_pb2.Status:
    """Return the status of an error: one ErrorInfo, and the detail that its kind calls for."""
    return refusal_of(error, method).status()


def refusal_of(error: MilepostError, method: Method | None = None) -> Refusal:
    """Return the parts of the refusal that an error leads to."""
    invalid = error if isinstance(error, InvalidRequest) else InvalidRequest()
    return Refusal(
        code=code_of(error, method),
        reason=error.reason,
        message=str(error),
        facts=error.facts,
        violations=invalid.violations,
        omitted=invalid.omitted,
        detail=_detail(error),
    )


def _detail(error: MilepostError) -> Message | None:
    match error:
        case QuotaExceeded():
            violation = error_details_pb2.QuotaFailure.Violation(
                subject=error.limit, description=str(error)
            )
            return error_details_pb2.QuotaFailure(violations=[violation])
        case Unavailable() | RateLimited():
            delay = duration_pb2.Duration()
            delay.FromTimedelta(error.retry_after)
            return error_details_pb2.RetryInfo(retry_delay=delay)
        case _:
            return None


def log_refusal(error: MilepostError, call: Call, message: Any) -> None:
    """Log and count that `call`, or one item of its stream, was refused.

    The ids in `message` say what it was about.
    """
    code = code_of(error, call.method)
    record_refusal(error, call.authenticated, ids_of(message), code=code.name)


def defect(trace_id: str) -> Refusal:
    """Return the refusal of a call that met a defect; the log has the rest."""
    return Refusal(
        code=grpc.StatusCode.INTERNAL,
        reason="INTERNAL",
        message=f"internal error, trace id {trace_id}",
        facts={"trace_id": trace_id},
    )
