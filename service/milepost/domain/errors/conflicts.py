"""Errors of requests that conflict with what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.domain.errors.root import MilepostError

if TYPE_CHECKING:
    from collections.abc import Mapping


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
