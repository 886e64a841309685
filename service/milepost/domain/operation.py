"""The nouns of Milepost: operation, payload, request, principal and access filter."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NewType

from milepost.domain.fingerprint import fingerprint

if TYPE_CHECKING:
    from datetime import datetime, timedelta

OperationId = NewType("OperationId", str)

ID_RANDOM_BYTES: Final = 12
"""96 random bits: ids cannot be guessed, reveal no volume, and do not collide in practice."""
ID_PREFIX: Final = "op_"
ID_LENGTH: Final = len(ID_PREFIX) + 2 * ID_RANDOM_BYTES
ID_PATTERN: Final = re.compile(rf"{ID_PREFIX}[0-9a-f]{{{2 * ID_RANDOM_BYTES}}}")
"""To be used with ``fullmatch``: no upper case, no trailing newline."""


def new_operation_id() -> OperationId:
    """Return a random operation id: ``op_`` and 24 lower-case hex characters."""
    return OperationId(ID_PREFIX + secrets.token_hex(ID_RANDOM_BYTES))


class Status(StrEnum):
    """Lifecycle status of an operation. Only `transitions.TABLE` says how it changes."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class UnknownStatus(str):
    """A status that only a newer release knows: no transition expects it, no set contains it.

    Replicas of two releases run side by side, so a row may hold one.
    """

    __slots__ = ()


_STATUSES: Final = {status.value: status for status in Status}


def status_of(text: str) -> Status | UnknownStatus:
    """Return the status that is stored as `text`."""
    return _STATUSES.get(text) or UnknownStatus(text)


class Role(StrEnum):
    """Role of a principal; a credential carries one or more."""

    CALLER = "CALLER"
    WORKER = "WORKER"
    ADMIN = "ADMIN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A packed message, stored byte for byte: its declared type and its encoding.

    It has the fields of ``google.protobuf.Any``, without depending on protobuf.
    """

    type_url: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationError:
    """One stored error of an operation, as its worker reported it."""

    code: str
    message: str
    source: str | None = None
    details: str | None = None
    """A JSON object as text, or None."""


@dataclass(slots=True, kw_only=True)
class Operation:
    """One piece of work, as it stood when it was read. Times are aware and in UTC.

    Not frozen, because every call makes one: a frozen dataclass takes five times as long.
    """

    id: OperationId
    function: str
    version: str | None
    owner: str
    status: Status | UnknownStatus
    progress: float | None
    """0.0 to 1.0; absent until first reported."""
    progress_message: str | None
    progress_time: datetime | None
    result: Payload | None
    errors: tuple[OperationError, ...]
    metadata: str | None
    """The caller's own data: a JSON object as text, never interpreted."""
    original_request_id: str | None
    callback_url: str | None
    create_time: datetime
    start_time: datetime | None
    complete_time: datetime | None
    """The terminal time of a completed or failed operation."""
    cancel_time: datetime | None
    expire_time: datetime
    ttl: timedelta
    retry_after: timedelta
    """The suggested delay before the next poll."""
    revision: int
    """Starts at 1, rises by one with every committed transition."""
    attempt: int
    """Number of starts so far; the fencing token of a leased worker."""
    max_attempts: int
    failed_attempts: int
    """Number of attempts that ended badly, such as by a lost lease; bounded by `max_attempts`."""
    next_attempt_time: datetime
    """The time before which a pending operation is not claimable."""
    worker: str | None
    lease_expire_time: datetime | None
    trace_context: str | None
    """The ``traceparent`` under which it was created: what happens to it later joins that trace."""


@dataclass(slots=True, kw_only=True)
class CreateRequest:
    """The content of a create as the caller wrote it: checked, but not yet clamped."""

    function: str
    version: str | None = None
    metadata: str | None = None
    original_request_id: str | None = None
    callback_url: str | None = None
    callback_events: tuple[str, ...] = ()
    """Event types that webhooks are sent for; if empty, those of the end."""
    ttl: timedelta | None = None
    retry_after: timedelta | None = None
    max_attempts: int | None = None
    request_id: str | None = None

    @property
    def fingerprint(self) -> str:
        """The digest that tells a retry of this create from another use of its request_id."""
        return fingerprint(self)


@dataclass(slots=True, kw_only=True)
class NewOperation:
    """An operation that is about to be stored."""

    owner: str
    function: str
    version: str | None
    metadata: str | None
    original_request_id: str | None
    callback_url: str | None
    callback_events: tuple[str, ...]
    ttl: timedelta
    retry_after: timedelta
    max_attempts: int
    request_id: str | None
    fingerprint: str
    """The fingerprint of the create request."""
    trace_context: str | None
    """The ``traceparent`` under which the operation was created (W3C Trace Context)."""
    quota: int
    """Limit of active operations of the owner, this one included."""


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class AccessFilter:
    """The operations that a query may touch; to the caller, all others are missing.

    An operation is inside when its owner is `subject`, or `everything` is set, or its function
    matches one of the granted `functions`. Never changed once it is made, for it is part of keys;
    `frozen` would double the time to make one, which every call does.
    """

    subject: str
    everything: bool = False
    functions: tuple[str, ...] = ()
    """Exact names, or prefixes that end in ``*`` such as ``video.*``."""

    def covers(self, *, owner: str, function: str) -> bool:
        """Return whether an operation of this owner and function is inside."""
        return (
            self.everything
            or owner == self.subject
            or any(
                function.startswith(grant[:-1]) if grant.endswith("*") else function == grant
                for grant in self.functions
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The authenticated caller, from the credential and never from a message."""

    subject: str
    roles: frozenset[Role]
    credential_id: str
    functions: tuple[str, ...] = ()
    """The functions granted to a worker."""

    def may_work_on(self, function: str) -> bool:
        """Return whether `function` is granted to this principal, by its name or by a prefix."""
        return Role.WORKER in self.roles and any(
            function.startswith(grant[:-1]) if grant.endswith("*") else function == grant
            for grant in self.functions
        )

    def access_filter(self, *, worker: bool = False, admin: bool = False) -> AccessFilter:
        """Return the filter of this principal, where workers or admins have access too."""
        everything = admin and Role.ADMIN in self.roles
        functions = self.functions if worker and Role.WORKER in self.roles else ()
        return AccessFilter(subject=self.subject, everything=everything, functions=functions)
