"""The errors of the client, as one tree.

::

    MilepostError
    ├── InvalidRequest             a field is malformed: `violations` names every one
    │   └── ProgressDecrease       progress may not go back
    ├── Unauthenticated            the API key is missing or not valid
    ├── PermissionDenied           the API key lacks the role for this call
    ├── NotFound                   it does not exist, or is not visible to you
    │   ├── ApiKeyNotFound         no such API key
    │   ├── DeliveryNotFound       unknown, or of another owner's operation
    │   └── OperationNotFound      unknown, or not visible to you
    │       ├── OperationExpired   your own, but its ttl has passed
    │       └── OperationDeleted   your own, but it was deleted
    ├── IllegalTransition          the status found does not allow it: `status`, `allowed`
    │   └── Cancelled              ... because the operation is cancelled: stop working on it
    ├── Conflict                   decided on an old copy: read again, decide again
    │   ├── RevisionMismatch       the revision is not `expected_revision`
    │   ├── StaleAttempt           another worker has the operation: stop working on it
    │   └── LostRace               other writers were faster several times in a row
    ├── RequestIdReused            the request_id was used for something else
    ├── WebhooksNotConfigured      this service sends no webhooks
    ├── LimitReached               too much at once: try again after `retry_after`
    │   ├── RateLimited            too many calls
    │   ├── QuotaExceeded          too many active operations
    │   └── StreamFull             too many operations on one progress stream
    ├── Unavailable                the request is valid, but every try failed
    │   ├── StoreUnavailable       the database is away
    │   ├── Overloaded             the service holds as many calls as it may
    │   └── Draining               this replica is stopping
    ├── DeadlineExceeded           no answer in time: the outcome is unknown
    ├── NotAvailable               documented, but not in this release of the service
    ├── InternalError              a defect of the service: `metadata` names the trace
    │   └── IdsExhausted           it found no free id
    └── NoResult                   `result` has nothing to return: see `operation`
        ├── OperationFailed        it failed: `errors` holds the reasons
        ├── OperationCancelled     it was cancelled
        └── StillRunning           it had not ended when the timeout passed

All but the last branch are answers to a call, rebuilt from the reason that the service sent
(``refusal.py``), never from its text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc

from milepost_client.operation import Operation, OperationError, Status


@dataclass(frozen=True, slots=True)
class Violation:
    """One malformed field of a request."""

    field: str
    problem: str


class MilepostError(Exception):
    """The root of the tree. Raised itself only for answers that this client has no class for.

    Attributes:
        code: The gRPC code of the answer; None if no call was answered.
        reason: The machine-readable reason, such as ``ILLEGAL_TRANSITION``; empty if none was sent.
        metadata: The values in the message, by name.
        violations: Every field that was refused.
        retry_after: The pause before the next try that the service asks for.
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
    """The request is malformed. Nothing was read or changed."""


class ProgressDecrease(InvalidRequest):
    """Progress never goes back within one attempt, beyond a small tolerance."""


class Unauthenticated(MilepostError):
    """There is no API key, or it is not valid. Nothing was read."""


class PermissionDenied(MilepostError):
    """The API key lacks the role that this call needs. Says nothing about any operation."""


class NotFound(MilepostError):
    """It does not exist, or is not visible to the caller."""


class ApiKeyNotFound(NotFound):
    """There is no API key with this id."""


class DeliveryNotFound(NotFound):
    """The delivery is unknown, of another owner, or purged."""


class OperationNotFound(NotFound):
    """The operation is unknown, of another owner, expired or deleted."""


class OperationExpired(OperationNotFound):
    """The caller's own operation has passed its ttl."""


class OperationDeleted(OperationNotFound):
    """The caller's own operation was deleted."""


class IllegalTransition(MilepostError):
    """The status found does not allow this transition."""

    @property
    def transition(self) -> str:
        """The refused transition, such as ``complete``."""
        return self.metadata.get("transition", "")

    @property
    def status(self) -> str:
        """The status found."""
        return self.metadata.get("status", "")

    @property
    def allowed(self) -> frozenset[str]:
        """The statuses that would have allowed it."""
        return frozenset(filter(None, self.metadata.get("allowed", "").split(",")))


class Cancelled(IllegalTransition):
    """The operation is cancelled. Its worker stops; the result is not needed any more."""


class Conflict(MilepostError):
    """The decision rested on an old copy. Read the operation again, decide again, retry."""


class RevisionMismatch(Conflict):
    """The revision is not the expected one."""


class StaleAttempt(Conflict):
    """Another worker has the operation: this attempt is over."""


class LostRace(Conflict):
    """Other changes came first, every time the transition was tried."""


OVER: Final = (IllegalTransition, StaleAttempt, NotFound)
"""The refusals after which the worker no longer has the operation."""


class RequestIdReused(MilepostError):
    """The request_id was used for a request with other content."""


class WebhooksNotConfigured(MilepostError):
    """A callback URL was given to a service that sends no webhooks."""


class LimitReached(MilepostError):
    """Too much at once. Nothing was changed."""


class RateLimited(LimitReached):
    """Too many calls in a short time."""


class QuotaExceeded(LimitReached):
    """The owner has as many active operations as allowed."""


class StreamFull(LimitReached):
    """The progress stream carries as many operations as one may."""


class Unavailable(MilepostError):
    """The request is valid. It was tried until the deadline, where that is safe."""


class StoreUnavailable(Unavailable):
    """The database of the service does not answer."""


class Overloaded(Unavailable):
    """The service holds as many calls as it may."""


class Draining(Unavailable):
    """The called replica is stopping."""


class DeadlineExceeded(MilepostError, TimeoutError):
    """No answer came in time. The outcome is unknown."""


class NotAvailable(MilepostError):
    """The call is documented, but this release of the service does not serve it yet."""


class InternalError(MilepostError):
    """The service has a defect. `metadata` names the trace that leads to its log."""


class IdsExhausted(InternalError):
    """The service found no free id for a new operation."""


class NoResult(MilepostError):
    """`result` has nothing to return.

    Attributes:
        operation: The operation in the state found.
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
        """The reasons, as the worker or the service reported them."""
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
    """Return the error that says why the operation has no result (yet)."""
    match operation.status:
        case Status.FAILED:
            return OperationFailed(operation)
        case Status.CANCELLED:
            return OperationCancelled(operation)
        case _:
            return StillRunning(operation)
