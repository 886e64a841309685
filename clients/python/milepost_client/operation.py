"""The nouns of Milepost as plain values: an operation, its status, its errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = bool | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
"""A JSON value (`float` includes `int`). Send integers above 2**53 as text."""


class Status(StrEnum):
    """The status of an operation. The last three are terminal."""

    UNKNOWN = "UNKNOWN"
    """A status of a newer service, which this client treats as not terminal."""
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """True if the operation has ended."""
        return self in {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


@dataclass(frozen=True, slots=True)
class OperationError:
    """One reason of a failure, as the worker reported it. Not an exception."""

    code: str
    """The kind of error for programs, such as ``CODEC_UNSUPPORTED``."""
    message: str
    """The reason as a text."""
    source: str | None = None
    """The part of the input or of the system that caused it."""
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further data of the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One piece of work, in the state that was read. Times are aware and in UTC.

    `list` leaves out `metadata`, `result` and `errors` unless asked for them, and so do answers
    to progress: there they are empty, whatever the operation holds.
    """

    id: str
    function: str
    version: str | None
    owner: str
    metadata: dict[str, Any] = field(hash=False)
    """The data of the caller; empty if none was given."""
    original_request_id: str | None
    callback_url: str | None
    """The URL that receives webhooks, without its query; shown to the owner only."""

    status: Status
    progress: float | None
    """0.0 to 1.0; None until first reported."""
    progress_message: str | None
    result: Any = field(hash=False)
    """The result: a plain value, or a ``google.protobuf.Any`` of any other type."""
    errors: tuple[OperationError, ...]

    revision: int
    """Rises by one with every change; the token for `expected_revision`."""
    attempt: int
    """The number of starts; the token by which the writes of an earlier worker are refused."""
    max_attempts: int
    failed_attempts: int
    """The number of attempts that lost their lease; at most `max_attempts`."""
    next_attempt_time: datetime | None
    """When it can be claimed, while it is pending."""
    worker: str | None

    ttl: timedelta
    retry_after: timedelta
    """The suggested pause before the next read."""
    create_time: datetime
    start_time: datetime | None
    progress_time: datetime | None
    complete_time: datetime | None
    """When it was completed or failed."""
    cancel_time: datetime | None
    lease_expire_time: datetime | None
    expire_time: datetime

    next_step: str | None
    """The next required event: ``CLAIM`` by a worker, ``RENEWAL`` of its lease, or its ``END``."""
    next_step_deadline: datetime | None
    """The deadline of the next step; None after the end."""

    replayed: bool = field(default=False, compare=False)
    """True if the call changed nothing, because an earlier one with the same request_id did."""
