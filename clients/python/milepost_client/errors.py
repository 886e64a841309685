"""Everything that can go wrong, as one tree.

::

    MilepostError
    ├── InvalidRequest             a field is malformed: `violations` names every one
    │   └── ProgressDecrease       progress may not go back
    ├── Unauthenticated            the API key is missing or not valid
    ├── PermissionDenied           the API key lacks the role for this call
    ├── NotFound                   there is no such thing for you
    │   ├── ApiKeyNotFound         no such API key
    │   ├── DeliveryNotFound       unknown, or of somebody else's operation
    │   └── OperationNotFound      unknown, or none of your business
    │       ├── OperationExpired   your own, but it outlived its ttl
    │       └── OperationDeleted   your own, but it was deleted
    ├── IllegalTransition                not allowed in the status found: `transition`, `status`,
    `allowed` │   └── Cancelled              ... because the operation is cancelled: stop working
    on it ├── Conflict                   decided on an old copy: read again, decide again
    │   ├── RevisionMismatch       the operation has moved since `expected_revision`
    │   ├── StaleAttempt           the work was handed to another worker: stop working on it
    │   └── LostRace               others were faster several times in a row
    ├── RequestIdReused            the request_id was used for something else
    ├── WebhooksNotConfigured      this service sends no webhooks
    ├── LimitReached               too much at once: come back after `retry_after`
    │   ├── RateLimited            too many calls
    │   ├── QuotaExceeded          too many active operations
    │   └── StreamFull             too many operations on one progress stream
    ├── Unavailable                nothing is wrong with the request; it was retried in vain
    │   ├── StoreUnavailable       the database is away
    │   ├── Overloaded             more calls wait than the service is willing to hold
    │   └── Draining               this replica is stopping
    ├── DeadlineExceeded           no answer in time: it may or may not have happened
    ├── NotAvailable               documented, but not in this release of the service
    ├── InternalError              a defect of the service: `metadata` names the trace
    │   └── IdsExhausted           it found no free id
    └── NoResult                   `result` has none to give: `operation` tells how it stands
        ├── OperationFailed        it failed: `errors` tells why
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
    """One field of a request that is not as it must be."""

    field: str
    problem: str


class MilepostError(Exception):
    """The root of the tree. Raised itself only for answers that this client has no class for.

    Attributes:
        code: The gRPC code of the answer; nothing if no call was answered.
        reason: The machine-readable reason, such as ``ILLEGAL_TRANSITION``; empty if none was sent.
        metadata: The facts behind the sentence, by name.
        violations: Every field that was refused.
        retry_after: How long the service asks to wait before the next try.
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
    """There is no such thing for the asker."""


class ApiKeyNotFound(NotFound):
    """There is no API key with this id."""


class DeliveryNotFound(NotFound):
    """You have no such delivery: unknown, somebody else's, or forgotten."""


class OperationNotFound(NotFound):
    """There is no such operation for the asker: unknown, foreign, expired or deleted alike."""


class OperationExpired(OperationNotFound):
    """The asker's own operation outlived its ttl."""


class OperationDeleted(OperationNotFound):
    """The asker's own operation was deleted."""


class IllegalTransition(MilepostError):
    """The status found does not allow this transition."""

    @property
    def transition(self) -> str:
        """What was asked for, such as ``complete``."""
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
    """The operation is cancelled. A worker stops; nobody waits for its result any more."""


class Conflict(MilepostError):
    """The decision rested on an old copy. Read the operation again, decide again, retry."""


class RevisionMismatch(Conflict):
    """The operation has moved since the revision that was expected."""


class StaleAttempt(Conflict):
    """The work was handed to another worker since: this attempt is over."""


class LostRace(Conflict):
    """Other changes came first, every time the transition was tried."""


OVER: Final = (IllegalTransition, StaleAttempt, NotFound)
"""The refusals that mean that the work is somebody else's by now, or nobody's."""


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
    """Nothing is wrong with the request. It was retried until the deadline, where that is safe."""


class StoreUnavailable(Unavailable):
    """The database of the service does not answer."""


class Overloaded(Unavailable):
    """More calls wait than the service is willing to hold."""


class Draining(Unavailable):
    """The replica that was asked is stopping."""


class DeadlineExceeded(MilepostError, TimeoutError):
    """No answer came in time. What was asked for may or may not have happened."""


class NotAvailable(MilepostError):
    """The call is documented, but this release of the service does not serve it yet."""


class InternalError(MilepostError):
    """The service has a defect. `metadata` names the trace that leads to its log."""


class IdsExhausted(InternalError):
    """The service found no free id for a new operation."""


class NoResult(MilepostError):
    """`result` has none to give.

    Attributes:
        operation: The operation as it stood.
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
        """Why, as the worker or the service reported it."""
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
