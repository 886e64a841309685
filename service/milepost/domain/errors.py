"""The errors of the service, as one tree.

::

    MilepostError
    ├── InvalidRequest                   the message is malformed; names every violated field
    │   └── ProgressDecrease             progress would decrease
    ├── Unauthenticated                  the credential is missing or invalid
    ├── PermissionDenied                 the credential lacks the role that this RPC requires
    ├── OperationNotFound                unknown, or not visible to the caller
    │   ├── OperationExpired             returned to the owner only
    │   └── OperationDeleted             returned to the owner only
    ├── DeliveryNotFound                 unknown, or of another owner's operation
    ├── SigningSecretNotFound            the caller has no signing secret yet
    ├── ApiKeyNotFound                   no such key exists; returned to admins only
    ├── IllegalTransition                the transition table does not allow it from this status
    ├── CancellationNotRequested         there is no requested cancel to acknowledge
    ├── Conflict                         based on an old copy: read again and retry
    │   ├── RevisionMismatch
    │   ├── StaleAttempt
    │   └── LostRace
    ├── RevisionAhead                    the operation never reached this revision
    ├── RequestIdReused                  the same request_id with other content
    ├── UniqueKeyTaken                   an active operation of the owner has the same unique_key
    ├── WebhooksNotConfigured            no master key is configured to sign webhooks
    ├── LimitReached                     a limit of the principal; nothing was changed
    │   ├── RateLimited                  too many calls in a short time
    │   └── QuotaExceeded                too many active operations
    ├── StreamFull                       too many operations on one progress stream
    ├── Unavailable                      temporary: the same request may succeed later
    │   ├── StoreUnavailable
    │   ├── IdentityProviderUnavailable
    │   ├── Overloaded
    │   └── Draining
    └── IdsExhausted                     ten random ids in a row were already in use

Each leaf has a constant `reason`, by which programs decide, and typed fields. Its message is built
from these fields, and `facts` repeats every dynamic part, so no client parses text (AIP-193). One
table maps the errors to gRPC codes: ``rpc/interceptors/errors.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping


class MilepostError(Exception):
    """The root of the tree. Only its subclasses are raised."""

    reason: ClassVar[str]
    stated: ClassVar[tuple[str, ...]] = ()
    """The fields that the message is built from."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Every dynamic part of the message, by name."""
        return {name: str(getattr(self, name)) for name in self.stated}


@dataclass(frozen=True, slots=True)
class Violation:
    """One invalid field of a request."""

    field: str
    problem: str


class InvalidRequest(MilepostError):
    """A malformed request. No data was read or changed."""

    reason = "INVALID_REQUEST"

    def __init__(self, *violations: Violation, omitted: int = 0) -> None:
        """Report every violated field at once, and how many further ones are omitted."""
        self.violations, self.omitted = violations, omitted
        super().__init__("; ".join(f"{v.field}: {v.problem}" for v in violations))


class ProgressDecrease(InvalidRequest):
    """A decrease of progress within one attempt, beyond a small tolerance."""

    reason = "PROGRESS_DECREASE"
    stated = ("current", "requested")

    def __init__(self, *, current: float | None, requested: float | None) -> None:
        """Report the stored and the refused value."""
        self.current, self.requested = current, requested
        super().__init__(
            Violation("progress", f"may not go back from {current} to {requested}"),
        )


class Unauthenticated(MilepostError):
    """A missing or invalid credential. No data was read."""

    reason = "UNAUTHENTICATED"

    def __init__(self, *, tokens: bool = False, certificates: bool = False) -> None:
        """Build one message for every cause, so that it discloses none.

        The message lists the accepted kinds of credential: API keys, and `tokens` and
        `certificates` if the operator has configured them.
        """
        bearer = "API key or token" if tokens else "API key"
        otherwise = ", or call with a trusted client certificate" if certificates else ""
        super().__init__(
            f"a valid credential is required: send 'authorization: Bearer <{bearer}>'{otherwise}"
        )


class PermissionDenied(MilepostError):
    """A credential without the role that the RPC requires. Independent of any operation."""

    reason = "PERMISSION_DENIED"

    def __init__(self, *, role: str, function: str | None = None) -> None:
        """Report the missing role, or the function that the role is not granted."""
        self.role, self.function = role, function
        granted = "" if function is None else f", granted the function {function}"
        super().__init__(f"this call needs the role {role}{granted}")

    @property
    def facts(self) -> Mapping[str, str]:
        """The role, and the function if its grant is missing."""
        function = {} if self.function is None else {"function": self.function}
        return {"role": self.role, **function}


class OperationNotFound(MilepostError):
    """An operation that the caller cannot read: unknown, foreign, expired or deleted."""

    reason = "OPERATION_NOT_FOUND"
    stated = ("operation_id",)

    def __init__(self, operation_id: str) -> None:
        """Report the requested id."""
        self.operation_id = operation_id
        super().__init__(self._sentence(operation_id))

    @staticmethod
    def _sentence(operation_id: str) -> str:
        return f"operation {operation_id} does not exist"


class OperationExpired(OperationNotFound):
    """An operation of the caller that has expired."""

    reason = "OPERATION_EXPIRED"

    @staticmethod
    def _sentence(operation_id: str) -> str:
        return f"operation {operation_id} has expired"


class OperationDeleted(OperationNotFound):
    """An operation of the caller that was deleted."""

    reason = "OPERATION_DELETED"

    def __init__(self, operation_id: str, *, request_id: str | None) -> None:
        """Report the id. Keep the `request_id` of the delete, which identifies its repetition."""
        super().__init__(operation_id)
        self.request_id = request_id

    @staticmethod
    def _sentence(operation_id: str) -> str:
        return f"operation {operation_id} was deleted"


class DeliveryNotFound(MilepostError):
    """A delivery that the caller cannot read: unknown, foreign or purged."""

    reason = "DELIVERY_NOT_FOUND"
    stated = ("delivery_id",)

    def __init__(self, delivery_id: str) -> None:
        """Report the requested id."""
        self.delivery_id = delivery_id
        super().__init__(f"delivery {delivery_id} does not exist")


class SigningSecretNotFound(MilepostError):
    """A caller without a signing secret: it has neither a callback URL nor rotated."""

    reason = "SIGNING_SECRET_NOT_FOUND"

    def __init__(self) -> None:
        """Report the two ways to create a secret."""
        super().__init__(
            "no signing secret exists yet: create an operation with callback_url, or rotate"
        )


class ApiKeyNotFound(MilepostError):
    """An unknown API key. Only admins can request one."""

    reason = "API_KEY_NOT_FOUND"
    stated = ("key_id",)

    def __init__(self, key_id: str) -> None:
        """Report the requested id."""
        self.key_id = key_id
        super().__init__(f"API key {key_id} does not exist")


class IllegalTransition(MilepostError):
    """A transition that the transition table does not allow from the current status."""

    reason = "ILLEGAL_TRANSITION"

    def __init__(self, *, transition: str, status: str, allowed: tuple[str, ...]) -> None:
        """Report the transition, the current status and the allowed statuses."""
        self.transition, self.status, self.allowed = transition, status, allowed
        super().__init__(f"cannot {transition} while {status}; allowed while {', '.join(allowed)}")

    @property
    def facts(self) -> Mapping[str, str]:
        """The transition, the current status and the allowed statuses."""
        return {
            "transition": self.transition,
            "status": self.status,
            "allowed": ",".join(self.allowed),
        }


class CancellationNotRequested(MilepostError):
    """An acknowledgement without a requested cancel. Nothing was changed."""

    reason = "CANCELLATION_NOT_REQUESTED"
    stated = ("operation_id",)

    def __init__(self, operation_id: str) -> None:
        """Name the operation."""
        self.operation_id = operation_id
        super().__init__(f"no cancel of operation {operation_id} was requested")


class Conflict(MilepostError):
    """A request based on an old copy. The caller reads the operation again and retries."""


class RevisionMismatch(Conflict):
    """An operation that has changed since the expected revision."""

    reason = "REVISION_MISMATCH"
    stated = ("expected", "actual")

    def __init__(self, *, expected: int | None, actual: int) -> None:
        """Report both revisions."""
        self.expected, self.actual = expected, actual
        super().__init__(f"expected revision {expected}, but the operation is at {actual}")


class StaleAttempt(Conflict):
    """An attempt that has ended: its lease is lost, or another attempt has started."""

    reason = "STALE_ATTEMPT"
    stated = ("expected", "actual")

    def __init__(self, *, expected: int | None, actual: int) -> None:
        """Report both attempts."""
        self.expected, self.actual = expected, actual
        where = "its lease is lost" if expected == actual else f"this is attempt {actual}"
        super().__init__(f"attempt {expected} is over: {where}")


class LostRace(Conflict):
    """A transition that concurrent changes preceded at every try."""

    reason = "LOST_RACE"
    stated = ("operation_id", "tries")

    def __init__(self, operation_id: str, *, tries: int) -> None:
        """Report the operation and the number of tries."""
        self.operation_id, self.tries = operation_id, tries
        super().__init__(f"operation {operation_id} changed under each of {tries} tries")


class RevisionAhead(MilepostError):
    """A watch after a revision that the operation has not reached, or has no longer.

    The revision is that of another operation, or the database was restored from a backup.
    """

    reason = "REVISION_AHEAD"
    stated = ("requested", "actual")

    def __init__(self, *, requested: int, actual: int) -> None:
        """Report both revisions."""
        self.requested, self.actual = requested, actual
        super().__init__(f"revision {requested} is ahead of the operation, which is at {actual}")


class RequestIdReused(MilepostError):
    """A request_id that its owner has used for a create with other content."""

    reason = "REQUEST_ID_REUSED"
    stated = ("request_id",)

    def __init__(self, request_id: str) -> None:
        """Report the request_id."""
        self.request_id = request_id
        super().__init__(f"request_id {request_id} was used for a create with other content")


class UniqueKeyTaken(MilepostError):
    """A unique_key that an active operation of the same owner has. Nothing was created."""

    reason = "UNIQUE_KEY_TAKEN"
    stated = ("unique_key", "operation_id")

    def __init__(self, unique_key: str, operation_id: str) -> None:
        """Name the key and the operation that has it."""
        self.unique_key = unique_key
        self.operation_id = operation_id
        super().__init__(f"operation {operation_id} is active with the unique_key {unique_key}")


class WebhooksNotConfigured(MilepostError):
    """A request about webhooks to a service without a master key to sign them with."""

    reason = "WEBHOOKS_NOT_CONFIGURED"

    def __init__(self) -> None:
        """Report the alternative."""
        super().__init__("this service sends no webhooks: create without callback_url and poll")


class LimitReached(MilepostError):
    """A limit of one principal. No data was read or changed."""

    limit: str
    """Name of the limit: a label of metrics, without the principal."""


class RateLimited(LimitReached):
    """Too many calls in a short time. One more is allowed after `retry_after`."""

    reason = "RATE_LIMITED"

    def __init__(
        self, *, limit: str, count: int, period: timedelta, retry_after: timedelta
    ) -> None:
        """Report the limit: its name, its count and its period."""
        self.limit, self.count, self.period = limit, count, period
        self.retry_after = retry_after
        words = limit.replace("_", " ")
        super().__init__(f"too many {words}: at most {count} in {period.total_seconds():g} s")

    @property
    def facts(self) -> Mapping[str, str]:
        """The name, the count and the period of the limit."""
        return {
            "limit": self.limit.replace("_", " "),
            "count": str(self.count),
            "period_seconds": f"{self.period.total_seconds():g}",
        }


class QuotaExceeded(LimitReached):
    """The maximum number of active operations of one owner."""

    reason = "QUOTA_EXCEEDED"
    limit = "active_operations"
    stated = ("active", "quota")

    def __init__(self, *, active: int, quota: int) -> None:
        """Report the number of active operations and the quota."""
        self.active, self.quota = active, quota
        super().__init__(f"{active} operations are active, at most {quota} may be")


class StreamFull(MilepostError):
    """The maximum number of operations on one progress stream."""

    reason = "STREAM_FULL"
    stated = ("max_operations",)

    def __init__(self, *, max_operations: int) -> None:
        """Report the maximum."""
        self.max_operations = max_operations
        super().__init__(f"this stream carries {max_operations} operations, open another one")


class Unavailable(MilepostError):
    """A temporary failure: the same request may succeed after `retry_after`."""

    retry_after: ClassVar = timedelta(seconds=1)


class StoreUnavailable(Unavailable):
    """A database that does not answer in time. A change may or may not be committed."""

    reason = "STORE_UNAVAILABLE"

    def __init__(self) -> None:
        """Omit the cause: only the log describes the database."""
        super().__init__("the store is not available, try again")


class IdentityProviderUnavailable(Unavailable):
    """An issuer of tokens that does not provide its keys. No data was read."""

    reason = "IDENTITY_PROVIDER_UNAVAILABLE"

    def __init__(self) -> None:
        """Omit the issuer and the cause: only the log describes them."""
        super().__init__("the identity provider is not available, try again")


class Overloaded(Unavailable):
    """More waiting calls than the replica accepts."""

    reason = "OVERLOADED"

    def __init__(self) -> None:
        """Ask the caller to retry."""
        super().__init__("too many calls at once, try again")


class Draining(Unavailable):
    """A process that is shutting down and accepts no new calls."""

    reason = "DRAINING"

    def __init__(self) -> None:
        """Ask the caller to retry, on another replica."""
        super().__init__("this replica is stopping, try again")


class IdsExhausted(MilepostError):
    """Random ids that are all in use: the source of randomness is broken."""

    reason = "IDS_EXHAUSTED"

    def __init__(self, *, tries: int) -> None:
        """Report the number of tries."""
        super().__init__(f"no free operation id after {tries} tries")
