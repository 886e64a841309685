"""Everything that can go wrong, as one tree.

::

    MilepostError
    ├── InvalidRequest          the message is malformed: every violated field is named
    │   └── ProgressDecrease    progress may not go back
    ├── Unauthenticated         no credential, or a bad one
    ├── PermissionDenied        the credential lacks the role this RPC needs
    ├── OperationNotFound       unknown, or none of the asker's business
    │   ├── OperationExpired    told to the owner only
    │   └── OperationDeleted    told to the owner only
    ├── DeliveryNotFound        unknown, or of somebody else's operation
    ├── ApiKeyNotFound          there is no such key: told to admins only
    ├── IllegalTransition             the transition table does not allow it from this status
    ├── Conflict                decided on an old copy: read again and retry
    │   ├── RevisionMismatch
    │   ├── StaleAttempt
    │   └── LostRace
    ├── RequestIdReused         the same request_id with other content
    ├── WebhooksNotConfigured   a callback URL, but nothing to sign its webhooks with
    ├── LimitReached            too much of it: nothing was changed
    │   ├── RateLimited         too many calls in a short time
    │   └── QuotaExceeded       too many active operations
    ├── StreamFull              one progress stream, too many operations
    ├── Unavailable             try again soon: nothing is wrong with the request
    │   ├── StoreUnavailable
    │   ├── Overloaded
    │   └── Draining
    └── IdsExhausted            ten fresh ids in a row were taken

Each leaf has a constant `reason` (what programs decide by) and typed fields; its sentence is
built from the fields, so `facts` repeats every dynamic part and nobody has to parse text
(AIP-193). They are mapped to gRPC in one place, ``rpc/interceptors/errors.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping


class MilepostError(Exception):
    """The root of the tree. Never raised itself."""

    reason: ClassVar[str]
    stated: ClassVar[tuple[str, ...]] = ()
    """The fields that its sentence is built from."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Every dynamic part of the sentence, by name."""
        return {name: str(getattr(self, name)) for name in self.stated}


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that is not as it must be."""

    field: str
    problem: str


class InvalidRequest(MilepostError):
    """The message is malformed. Nothing was read or changed."""

    reason = "INVALID_REQUEST"

    def __init__(self, *violations: Violation) -> None:
        """Name every violated field at once."""
        self.violations = violations
        super().__init__("; ".join(f"{v.field}: {v.problem}" for v in violations))


class ProgressDecrease(InvalidRequest):
    """Progress never goes back within one attempt, beyond a small tolerance."""

    reason = "PROGRESS_DECREASE"
    stated = ("current", "requested")

    def __init__(self, *, current: float | None, requested: float | None) -> None:
        """Name the value stored and the value refused."""
        self.current, self.requested = current, requested
        super().__init__(
            Violation("progress", f"may not go back from {current} to {requested}"),
        )


class Unauthenticated(MilepostError):
    """There is no credential, or it is not valid. Nothing was read."""

    reason = "UNAUTHENTICATED"

    def __init__(self, *, tokens: bool = False, certificates: bool = False) -> None:
        """One text for every cause: which part was wrong is nobody's business.

        It names the kinds of credential that the service takes: API keys, and what else it trusts.
        """
        bearer = "API key or token" if tokens else "API key"
        otherwise = ", or call with a trusted client certificate" if certificates else ""
        super().__init__(
            f"a valid credential is required: send 'authorization: Bearer <{bearer}>'{otherwise}"
        )


class PermissionDenied(MilepostError):
    """The credential lacks the role that this RPC needs. Says nothing about any operation."""

    reason = "PERMISSION_DENIED"

    def __init__(self, *, role: str, function: str | None = None) -> None:
        """Name the role that is missing, or the function that is not granted to the role."""
        self.role, self.function = role, function
        granted = "" if function is None else f", granted the function {function}"
        super().__init__(f"this call needs the role {role}{granted}")

    @property
    def facts(self) -> Mapping[str, str]:
        """The role, and the function if it is one that is missing."""
        function = {} if self.function is None else {"function": self.function}
        return {"role": self.role, **function}


class OperationNotFound(MilepostError):
    """There is no such operation for the asker: unknown, foreign, expired or deleted alike."""

    reason = "OPERATION_NOT_FOUND"
    stated = ("operation_id",)

    def __init__(self, operation_id: str) -> None:
        """Name the id that was asked for."""
        self.operation_id = operation_id
        super().__init__(self._sentence(operation_id))

    @staticmethod
    def _sentence(operation_id: str) -> str:
        return f"operation {operation_id} does not exist"


class OperationExpired(OperationNotFound):
    """The asker's own operation outlived its ttl."""

    reason = "OPERATION_EXPIRED"

    @staticmethod
    def _sentence(operation_id: str) -> str:
        return f"operation {operation_id} has expired"


class OperationDeleted(OperationNotFound):
    """The asker's own operation was deleted."""

    reason = "OPERATION_DELETED"

    def __init__(self, operation_id: str, *, request_id: str | None) -> None:
        """Name the id, and keep which call deleted it, so that its repetition can be told."""
        super().__init__(operation_id)
        self.request_id = request_id

    @staticmethod
    def _sentence(operation_id: str) -> str:
        return f"operation {operation_id} was deleted"


class DeliveryNotFound(MilepostError):
    """The asker has no such delivery: unknown, foreign and forgotten alike."""

    reason = "DELIVERY_NOT_FOUND"
    stated = ("delivery_id",)

    def __init__(self, delivery_id: str) -> None:
        """Name the id that was asked for."""
        self.delivery_id = delivery_id
        super().__init__(f"delivery {delivery_id} does not exist")


class ApiKeyNotFound(MilepostError):
    """There is no API key with this id. Only admins can ask."""

    reason = "API_KEY_NOT_FOUND"
    stated = ("key_id",)

    def __init__(self, key_id: str) -> None:
        """Name the id that was asked for."""
        self.key_id = key_id
        super().__init__(f"API key {key_id} does not exist")


class IllegalTransition(MilepostError):
    """The transition table does not allow this transition from the status found."""

    reason = "ILLEGAL_TRANSITION"

    def __init__(self, *, transition: str, status: str, allowed: tuple[str, ...]) -> None:
        """Name the transition, the status found and the statuses allowed."""
        self.transition, self.status, self.allowed = transition, status, allowed
        super().__init__(f"cannot {transition} while {status}; allowed while {', '.join(allowed)}")

    @property
    def facts(self) -> Mapping[str, str]:
        """The transition and both sides of the rule."""
        return {
            "transition": self.transition,
            "status": self.status,
            "allowed": ",".join(self.allowed),
        }


class Conflict(MilepostError):
    """The decision rested on an old copy. Read the operation again, decide again, retry."""


class RevisionMismatch(Conflict):
    """The operation has moved since the revision that the asker expected."""

    reason = "REVISION_MISMATCH"
    stated = ("expected", "actual")

    def __init__(self, *, expected: int | None, actual: int) -> None:
        """Name both revisions."""
        self.expected, self.actual = expected, actual
        super().__init__(f"expected revision {expected}, but the operation is at {actual}")


class StaleAttempt(Conflict):
    """The work was handed to another worker since: this attempt is over."""

    reason = "STALE_ATTEMPT"
    stated = ("expected", "actual")

    def __init__(self, *, expected: int | None, actual: int) -> None:
        """Name both attempts."""
        self.expected, self.actual = expected, actual
        where = "its lease is lost" if expected == actual else f"this is attempt {actual}"
        super().__init__(f"attempt {expected} is over: {where}")


class LostRace(Conflict):
    """Other changes came first, every time the transition was tried."""

    reason = "LOST_RACE"
    stated = ("operation_id", "tries")

    def __init__(self, operation_id: str, *, tries: int) -> None:
        """Name the operation and how often the transition was tried."""
        self.operation_id, self.tries = operation_id, tries
        super().__init__(f"operation {operation_id} changed under each of {tries} tries")


class RequestIdReused(MilepostError):
    """The owner has used this request_id for a create with other content."""

    reason = "REQUEST_ID_REUSED"
    stated = ("request_id",)

    def __init__(self, request_id: str) -> None:
        """Name the request_id."""
        self.request_id = request_id
        super().__init__(f"request_id {request_id} was used for a create with other content")


class WebhooksNotConfigured(MilepostError):
    """A callback URL was given, but the service has no master key to sign webhooks with."""

    reason = "WEBHOOKS_NOT_CONFIGURED"

    def __init__(self) -> None:
        """Say what the caller can do."""
        super().__init__("this service sends no webhooks: create without callback_url and poll")


class LimitReached(MilepostError):
    """Too much of something for one principal. Nothing was read or changed."""

    limit: str
    """What there was too much of, in one word: for metrics, never the principal's name."""


class RateLimited(LimitReached):
    """Too many calls in a short time. After `retry_after` there is room for one."""

    reason = "RATE_LIMITED"

    def __init__(
        self, *, limit: str, count: int, period: timedelta, retry_after: timedelta
    ) -> None:
        """Name what is limited, and how many are allowed in which period."""
        self.limit, self.count, self.period = limit, count, period
        self.retry_after = retry_after
        words = limit.replace("_", " ")
        super().__init__(f"too many {words}: at most {count} in {period.total_seconds():g} s")

    @property
    def facts(self) -> Mapping[str, str]:
        """The limit, as a word, a count and a period."""
        return {
            "limit": self.limit.replace("_", " "),
            "count": str(self.count),
            "period_seconds": f"{self.period.total_seconds():g}",
        }


class QuotaExceeded(LimitReached):
    """The owner has as many active operations as it may have. One that ends makes room."""

    reason = "QUOTA_EXCEEDED"
    limit = "active_operations"
    stated = ("active", "quota")

    def __init__(self, *, active: int, quota: int) -> None:
        """Name how many there are, and how many there may be."""
        self.active, self.quota = active, quota
        super().__init__(f"{active} operations are active, at most {quota} may be")


class StreamFull(MilepostError):
    """The progress stream carries as many operations as one may. Open another one."""

    reason = "STREAM_FULL"
    stated = ("most",)

    def __init__(self, *, most: int) -> None:
        """Name how many operations one stream carries."""
        self.most = most
        super().__init__(f"this stream has {most} operations already, open another one")


class Unavailable(MilepostError):
    """Nothing is wrong with the request: try again after `retry_after`."""

    retry_after: ClassVar = timedelta(seconds=1)


class StoreUnavailable(Unavailable):
    """The database does not answer in time. A change asked for may or may not have happened."""

    reason = "STORE_UNAVAILABLE"

    def __init__(self) -> None:
        """Say nothing about the database: its details belong in the log."""
        super().__init__("the store is not available, try again")


class Overloaded(Unavailable):
    """More calls wait than the service is willing to hold."""

    reason = "OVERLOADED"

    def __init__(self) -> None:
        """Say that waiting helps."""
        super().__init__("too many calls at once, try again")


class Draining(Unavailable):
    """The process is about to stop and takes no new work."""

    reason = "DRAINING"

    def __init__(self) -> None:
        """Say that another replica will answer."""
        super().__init__("this replica is stopping, try again")


class IdsExhausted(MilepostError):
    """Every fresh id that was tried was taken: the source of randomness is broken."""

    reason = "IDS_EXHAUSTED"

    def __init__(self, *, tries: int) -> None:
        """Name how many ids were tried."""
        super().__init__(f"no free operation id after {tries} tries")
