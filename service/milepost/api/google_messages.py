"""Operations as google.longrunning clients read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import struct_pb2
from google.rpc import code_pb2, error_details_pb2

from milepost.api.messages import STATUS_NUMBERS, error_messages, set_timestamp
from milepost.api.refusals import DOMAIN
from milepost.domain.operation import OperationError, Status
from milepost.gen.milepost.v1 import operation_pb2 as pb

if TYPE_CHECKING:
    from google.longrunning import operations_proto_pb2 as google_pb
    from google.rpc import status_pb2

    from milepost.domain.operation import Operation

COLLECTION: Final = "operations"
"""Parent of all operations; the name of each is `operations/` and its id."""

_OWN_CODES: Final = {
    "EXPIRED": code_pb2.DEADLINE_EXCEEDED,
    "RUN_TIMEOUT": code_pb2.DEADLINE_EXCEEDED,
    "QUEUE_TIMEOUT": code_pb2.DEADLINE_EXCEEDED,
    "LEASE_LOST": code_pb2.ABORTED,
}
"""The codes of errors that the service writes itself."""
_METADATA_TEXTS: Final = ("version", "progress", "progress_message")
_METADATA_TIMES: Final = (
    "create_time",
    "start_time",
    "complete_time",
    "cancel_time",
    "expire_time",
)


def google_name(operation_id: str) -> str:
    """Return the name of an operation."""
    return f"{COLLECTION}/{operation_id}"


def fill_google(message: google_pb.Operation, operation: Operation) -> None:
    """Fill the empty `message` with `operation`, read with its result and its errors.

    `metadata` is always set and always an OperationMetadata. `done` comes with exactly one of
    `response`, an empty Struct if the worker sent no result, and `error`, whose code is never 0.
    """
    message.name = google_name(operation.id)
    message.metadata.Pack(_metadata(operation), deterministic=True)
    match operation.status:
        case Status.COMPLETED:
            message.done = True
            if operation.result is None:
                message.response.Pack(struct_pb2.Struct())
            else:
                message.response.type_url = operation.result.type_url
                message.response.value = operation.result.value
        case Status.FAILED:
            message.done = True
            _fill_failure(message.error, operation)
        case Status.CANCELLED:
            message.done = True
            _fill_cancellation(message.error, operation)


def _metadata(operation: Operation) -> pb.OperationMetadata:
    message = pb.OperationMetadata(function=operation.function, revision=operation.revision)
    if isinstance(operation.status, Status):
        message.status = STATUS_NUMBERS[operation.status]
    for name in _METADATA_TEXTS:
        if (value := getattr(operation, name)) is not None:
            setattr(message, name, value)
    for name in _METADATA_TIMES:
        if (instant := getattr(operation, name)) is not None:
            set_timestamp(getattr(message, name), instant)
    return message


def _fill_failure(status: status_pb2.Status, operation: Operation) -> None:
    """Fill in the first error, its code by name, and all errors as details."""
    first = next(iter(operation.errors), _UNEXPLAINED)
    status.code = google_code(first)
    status.message = first.message
    _add_info(status, reason=first.code, operation_id=operation.id)
    for error in error_messages(operation.errors):
        status.details.add().Pack(error, deterministic=True)


def _fill_cancellation(status: status_pb2.Status, operation: Operation) -> None:
    status.code = code_pb2.CANCELLED
    status.message = operation.cancel_reason or "the operation was cancelled"
    _add_info(status, reason="CANCELLED", operation_id=operation.id)


_UNEXPLAINED: Final = OperationError(code="UNKNOWN", message="the operation failed")


def _add_info(status: status_pb2.Status, *, reason: str, operation_id: str) -> None:
    info: Any = error_details_pb2.ErrorInfo(
        reason=reason, domain=DOMAIN, metadata={"operation_id": operation_id}
    )
    status.details.add().Pack(info, deterministic=True)


def google_code(error: OperationError) -> int:
    """Return the code of google.rpc.Code with the name of the error's code, or else UNKNOWN.

    An error whose worker calls it OK is UNKNOWN: a failure with code 0 has no meaning for clients.
    """
    if error.code in _OWN_CODES:
        return _OWN_CODES[error.code]
    return dict(code_pb2.Code.items()).get(error.code) or code_pb2.UNKNOWN
