"""The errors of the client, as one tree.

::

    MilepostError
    ├── InvalidRequest                   a field is malformed: see `violations`
    │   └── ProgressDecrease             progress would decrease
    ├── Unauthenticated                  the credential is missing or invalid
    ├── PermissionDenied                 the credential lacks the role that the call requires
    ├── NotFound                         no such resource is visible to you
    │   ├── ApiKeyNotFound               unknown API key
    │   ├── DeliveryNotFound             unknown, or of another owner's operation
    │   ├── SigningSecretNotFound        you have no signing secret yet
    │   └── OperationNotFound            unknown, or not visible to you
    │       ├── OperationExpired         your own operation, expired
    │       └── OperationDeleted         your own operation, deleted
    ├── IllegalTransition                not allowed: see `transition`, `status`, `allowed`
    │   └── Cancelled                    not allowed because the operation is cancelled
    ├── CancellationNotRequested         acknowledged, but no cancel was requested
    ├── Conflict                         based on an old copy: read again and retry
    │   ├── RevisionMismatch             the operation is not at `expected_revision`
    │   ├── StaleAttempt                 the attempt is over: stop working on the operation
    │   └── LostRace                     concurrent changes preceded every try
    ├── RevisionAhead                    the operation is not at `after_revision` yet, or no longer
    ├── UniqueKeyTaken                   an active operation has the key: see `operation_id`
    ├── RequestIdReused                  the same request_id with other content
    ├── WebhooksNotConfigured            this service sends no webhooks
    ├── LimitReached                     a limit: try again after `retry_after`
    │   ├── RateLimited                  too many calls
    │   ├── QuotaExceeded                too many active operations
    │   └── StreamFull                   too many operations on one progress stream
    ├── Unavailable                      temporary; the client retried until the deadline
    │   ├── StoreUnavailable             the database does not answer
    │   ├── IdentityProviderUnavailable  the issuer of your token does not answer
    │   ├── Overloaded                   the replica holds as many calls as it accepts
    │   └── Draining                     the replica is shutting down
    ├── DeadlineExceeded                 no response in time: a change may have happened
    ├── NotAvailable                     documented, but not in this release of the service
    ├── UndecodableAnswer                accepted, but this client cannot read the response
    ├── InternalError                    a defect of the service: see `metadata` for the trace
    │   └── IdsExhausted                 the service found no free id
    └── NoResult                         `result` has no value: see `operation`
        ├── OperationFailed              it failed: see `errors`
        ├── OperationCancelled           it was cancelled
        └── StillRunning                 it had not ended when the timeout passed

Every error except those of the last branch is the response to a call. ``refusal.py`` rebuilds it
from the reason that the service sent, never from its text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc

from milepost_client.operation import Operation, OperationError, Status


@dataclass(frozen=True, slots=True)
class Violation:
    """One invalid field of a request."""

    field: str
    problem: str


class MilepostError(Exception):
    """The root of the tree. Raised itself only for responses without a class of their own.

    Attributes:
        code: The gRPC code of the response; None without a response.
        reason: The machine-readable reason, such as ``ILLEGAL_TRANSITION``; empty if none was sent.
        metadata: The facts behind the message, by name.
        violations: Every invalid field.
        retry_after: Delay before the next try that the service asks for.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after


class InvalidRequest(MilepostError):
    """A malformed request. No data was read or changed."""


class ProgressDecrease(InvalidRequest):
    """A decrease of progress within one attempt, beyond a small tolerance."""


class Unauthenticated(MilepostError):
    """A missing or invalid credential. No data was read."""


class PermissionDenied(MilepostError):
    """A credential without the role that the call requires. Independent of any operation."""


class NotFound(MilepostError):
    """A resource that does not exist or is not visible to you."""


class ApiKeyNotFound(NotFound):
    """An unknown API key."""


class DeliveryNotFound(NotFound):
    """A delivery that is not visible to you: unknown, foreign or purged."""


class SigningSecretNotFound(NotFound):
    """No signing secret yet: create an operation with a callback URL, or rotate."""


class OperationNotFound(NotFound):
    """An operation that is not visible to you: unknown, foreign, expired or deleted."""


class OperationExpired(OperationNotFound):
    """Your own operation, which has expired."""


class OperationDeleted(OperationNotFound):
    """Your own operation, which was deleted."""


class IllegalTransition(MilepostError):
    """A transition that the current status does not allow."""

    @property
    def transition(self) -> str:
        """The requested transition, such as ``complete``."""
        return self.metadata.get("transition", "")

    @property
    def status(self) -> str:
        """The current status."""
        return self.metadata.get("status", "")

    @property
    def allowed(self) -> frozenset[str]:
        """The statuses that allow the transition."""
        return frozenset(filter(None, self.metadata.get("allowed", "").split(",")))


class Cancelled(IllegalTransition):
    """A transition of a cancelled operation. The worker must stop."""


class CancellationNotRequested(MilepostError):
    """An acknowledgement by a worker of a cancel that was not requested."""


class Conflict(MilepostError):
    """A request based on an old copy. Read the operation again and retry."""


class RevisionMismatch(Conflict):
    """An operation that has changed since the expected revision."""


class StaleAttempt(Conflict):
    """An attempt that has ended: its lease is lost, or another attempt has started."""


class LostRace(Conflict):
    """A transition that concurrent changes preceded at every try."""


OVER: Final = (IllegalTransition, StaleAttempt, NotFound)
"""The errors after which a worker must stop working on the operation."""


class RevisionAhead(MilepostError):
    """A watch after a revision that the operation has not reached, or has no longer.

    The database of the service was restored from a backup, perhaps: watch again without
    `after_revision`.
    """


class UniqueKeyTaken(MilepostError):
    """A create with the unique key of an active operation. Nothing was created."""

    @property
    def operation_id(self) -> str:
        """The id of the active operation."""
        return self.metadata.get("operation_id", "")


class RequestIdReused(MilepostError):
    """A request_id that was used for a request with other content."""


class WebhooksNotConfigured(MilepostError):
    """A request about webhooks to a service that sends none."""


class LimitReached(MilepostError):
    """A limit of the principal. Nothing was changed."""


class RateLimited(LimitReached):
    """Too many calls in a short time."""


class QuotaExceeded(LimitReached):
    """The maximum number of active operations of one owner."""


class StreamFull(LimitReached):
    """The maximum number of operations on one progress stream."""


class Unavailable(MilepostError):
    """A temporary failure. The client retried until the deadline, where that is safe."""


class StoreUnavailable(Unavailable):
    """The database of the service does not answer."""


class IdentityProviderUnavailable(Unavailable):
    """The issuer of the token does not provide its keys to the service."""


class Overloaded(Unavailable):
    """The replica holds as many calls as it accepts."""


class Draining(Unavailable):
    """The replica is shutting down."""


class DeadlineExceeded(MilepostError, TimeoutError):
    """No response in time. A change may or may not have happened."""


class NotAvailable(MilepostError):
    """A documented call that this release of the service does not serve."""


class UndecodableAnswer(MilepostError):
    """A response that this client cannot decode. The service has accepted the request."""


class InternalError(MilepostError):
    """A defect of the service. `metadata` holds the trace id of its log entry."""


class IdsExhausted(InternalError):
    """The service found no free id for a new operation."""


class NoResult(MilepostError):
    """An operation without a result.

    Attributes:
        operation: The operation at that time.
    """

    def __init__(self, operation: Operation) -> None:
        super().__init__(self._sentence(operation))
        self.operation = operation

    def __reduce__(self) -> tuple[type["NoResult"], tuple[Operation]]:
        """Let the error travel between processes, with its operation."""
        return type(self), (self.operation,)

    @staticmethod
    def _sentence(operation: Operation) -> str:
        return f"operation {operation.id} is {operation.status}"


class OperationFailed(NoResult):
    """The operation failed."""

    @property
    def errors(self) -> tuple[OperationError, ...]:
        """The causes, as the worker or the service reported them."""
        return self.operation.errors

    @staticmethod
    def _sentence(operation: Operation) -> str:
        causes = "; ".join(f"{error.code}: {error.message}" for error in operation.errors)
        return f"operation {operation.id} failed: {causes}"


class OperationCancelled(NoResult):
    """The operation was cancelled."""


class StillRunning(NoResult, TimeoutError):
    """The operation had not ended when the timeout passed. It goes on; wait again."""


def no_result(operation: Operation) -> NoResult:
    """Return the error for an operation without a result."""
    match operation.status:
        case Status.FAILED:
            return OperationFailed(operation)
        case Status.CANCELLED:
            return OperationCancelled(operation)
        case _:
            return StillRunning(operation)
