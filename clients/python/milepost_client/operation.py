"""The nouns of Milepost as plain values: an operation, its status, its errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = bool | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
"""What JSON can say (`float` admits `int`). Integers above 2**53 travel as text."""


class Status(StrEnum):
    """Where an operation stands. Nothing leaves the last three."""

    UNKNOWN = "UNKNOWN"
    """A status that only a newer client knows; never the end of an operation for this one."""
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Tell whether the operation has ended."""
        return self in {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


@dataclass(frozen=True, slots=True)
class OperationError:
    """One reason why an operation failed, as its worker reported it. Not an exception."""

    code: str
    """The kind of error for programs, such as ``CODEC_UNSUPPORTED``."""
    message: str
    """What went wrong, in words."""
    source: str | None = None
    """The part of the input or of the system that caused it."""
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further facts, in the worker's own terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One piece of work, as it stood when it was read. Times are aware and in UTC.

    `list` leaves out `metadata`, `result` and `errors` unless asked for them, and so do answers
    to progress: there they are empty, whatever the operation holds.
    """

    id: str
    function: str
    version: str | None
    owner: str
    metadata: dict[str, Any] = field(hash=False)
    """The caller's own data; empty if it gave none."""
    original_request_id: str | None
    callback_url: str | None
    """Where webhooks go, without its query; told to the owner only."""

    status: Status
    progress: float | None
    """0.0 to 1.0; nothing until first reported."""
    progress_message: str | None
    result: Any = field(hash=False)
    """What the work produced: a plain value, or a ``google.protobuf.Any`` of any other type."""
    errors: tuple[OperationError, ...]

    revision: int
    """Rises by one with every change; the token for `expected_revision`."""
    attempt: int
    """How often the work was started; the token that fences off a worker that came too late."""
    max_attempts: int
    worker: str | None

    ttl: timedelta
    retry_after: timedelta
    """The suggested pause before the next look."""
    create_time: datetime
    start_time: datetime | None
    progress_time: datetime | None
    complete_time: datetime | None
    """When it was completed or failed."""
    cancel_time: datetime | None
    lease_expire_time: datetime | None
    expire_time: datetime

    next_step: str | None
    """What must happen next: ``CLAIM`` by a worker, ``RENEWAL`` of its lease, or its ``END``."""
    next_step_deadline: datetime | None
    """By when; nothing must happen to an operation that has ended."""

    replayed: bool = field(default=False, compare=False)
    """Tells that the call answered with this changed nothing: an earlier one, with the same
    request_id, had made the change."""
