"""Errors: whatever happens inside becomes one status, in one place.

The order of `MAPPING` is from the special to the general; a test checks that every leaf of the
tree in ``domain/errors.py`` finds its entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Never

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from milepost import telemetry
from milepost.access.audit import record_refusal
from milepost.domain.errors import (
    ApiKeyNotFound,
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
    WebhooksNotConfigured,
)
from milepost.rpc.logged_ids import ids_of, logged_ids

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from milepost.rpc.call import Context, RpcCall
    from milepost.rpc.interceptors.chain import CallNext

DOMAIN: Final = "milepost"
MAPPING: Final[dict[type[MilepostError], grpc.StatusCode]] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    OperationNotFound: grpc.StatusCode.NOT_FOUND,
    DeliveryNotFound: grpc.StatusCode.NOT_FOUND,
    SigningSecretNotFound: grpc.StatusCode.NOT_FOUND,
    ApiKeyNotFound: grpc.StatusCode.NOT_FOUND,
    IllegalTransition: grpc.StatusCode.FAILED_PRECONDITION,
    Conflict: grpc.StatusCode.ABORTED,
    RevisionAhead: grpc.StatusCode.OUT_OF_RANGE,
    RequestIdReused: grpc.StatusCode.ALREADY_EXISTS,
    WebhooksNotConfigured: grpc.StatusCode.FAILED_PRECONDITION,
    LimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StreamFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    IdsExhausted: grpc.StatusCode.INTERNAL,
}
_VALUES: Final = {code: code.value[0] for code in grpc.StatusCode}


def code_of(error: MilepostError) -> grpc.StatusCode:
    """Return the code of an error: that of its nearest ancestor in `MAPPING`."""
    return next(MAPPING[kind] for kind in type(error).__mro__ if kind in MAPPING)


def status_of(error: MilepostError) -> status_pb2.Status:
    """Return the status of an error, with one ErrorInfo and the detail its kind calls for."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata=dict(error.facts)
    )
    status = status_pb2.Status(code=_VALUES[code_of(error)], message=str(error))
    for detail in (info, *_details(error)):
        packed = any_pb2.Any()
        packed.Pack(detail, deterministic=True)
        status.details.append(packed)
    return status


def _details(error: MilepostError) -> list[Message]:
    match error:
        case InvalidRequest():
            return [
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(
                            field=violation.field, description=violation.problem
                        )
                        for violation in error.violations
                    ]
                )
            ]
        case QuotaExceeded():
            violation = error_details_pb2.QuotaFailure.Violation(
                subject=error.limit, description=str(error)
            )
            return [error_details_pb2.QuotaFailure(violations=[violation])]
        case Unavailable() | RateLimited():
            delay = duration_pb2.Duration()
            delay.FromTimedelta(error.retry_after)
            return [error_details_pb2.RetryInfo(retry_delay=delay)]
        case _:
            return []


def log_refusal(error: MilepostError, call: RpcCall, message: Any) -> None:
    """Log and count that `call`, or one item of its stream, was refused.

    The ids in `message` say what it was about.
    """
    record_refusal(error, call.authenticated, ids_of(message), code=code_of(error).name)


class Errors:
    """Turns domain errors into statuses, and anything else into INTERNAL with a trace id."""

    async def intercept(
        self, call_next: CallNext, call: RpcCall, request: Any, context: Context
    ) -> Any:
        """Answer the call, whatever happens inside. Cancellation passes untouched."""
        try:
            return await call_next(call, request, context)
        except MilepostError as error:
            log_refusal(error, call, request)
            await _abort(context, status_of(error))
        except (grpc.aio.AbortError, grpc.aio.BaseError):
            raise
        except Exception as error:  # noqa: BLE001 - the one place where nothing may get through
            trace_id = telemetry.current_trace_id()
            telemetry.record_defect(error, call.authenticated, logged_ids(request))
            await _abort(context, _internal(trace_id))


async def _abort(context: Context, status: status_pb2.Status) -> Never:
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError  # abort always raises


def _internal(trace_id: str) -> status_pb2.Status:
    status = status_pb2.Status(
        code=code_pb2.INTERNAL, message=f"internal error, trace id {trace_id}"
    )
    packed = any_pb2.Any()
    packed.Pack(
        error_details_pb2.ErrorInfo(
            reason="INTERNAL", domain=DOMAIN, metadata={"trace_id": trace_id}
        )
    )
    status.details.append(packed)
    return status
