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
class RetryPolicy:
    """The pauses between the attempts of an operation.

    Each is `backoff_multiplier` times the one before, and varies by up to 20 %.
    """

    initial_backoff: timedelta
    """The pause after the first failed attempt."""
    backoff_multiplier: float
    max_backoff: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEvent:
    """One transition in the history of an operation. Progress is not among them."""

    revision: int
    """The revision of the operation after the transition."""
    type: str
    """The type of the event, such as ``operation.retrying``."""
    transition: str
    """The name of the transition, such as ``retry``."""
    time: datetime
    actor: str
    """The subject that made the transition; ``milepost`` for the service itself."""
    attempt: int
    """The attempt that the transition began, changed or ended; 0 before the first one."""
    worker: str | None
    """The name of the worker of that attempt."""
    reason: str | None
    errors: tuple[OperationError, ...]
    """The errors of the attempt, if the transition ended it with errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One piece of work, in the state that was read. Times are aware and in UTC.

    `list` leaves out `metadata`, `result`, `errors` and `checkpoint` unless asked for them, and so
    do answers to progress: there they are empty, whatever the operation holds.
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
    """The result: a plain value, or a ``google.protobuf.Any`` of any other type. None without a
    result, and for a JSON null."""
    has_result: bool
    """True if there is a result, even a JSON null."""
    errors: tuple[OperationError, ...]

    revision: int
    """Rises by one with every change; the token for `expected_revision`."""
    attempt: int
    """The number of starts; the token by which the writes of an earlier worker are refused."""
    max_attempts: int
    failed_attempts: int
    """The number of attempts that lost their lease, took too long, or failed and may be retried;
    at most `max_attempts`."""
    next_attempt_time: datetime | None
    """When it can be claimed, while it waits for that."""
    retry_policy: RetryPolicy
    worker: str | None
    checkpoint: Any = field(hash=False)
    """The state that a worker has saved for the next attempt, as `result` is returned; None after
    the end."""

    priority: int
    """0 to 9: among the operations of its owner, a higher one is claimed first."""
    schedule_time: datetime | None
    """The time before which its first attempt does not begin."""
    unique_key: str | None
    """The key that at most one active operation of its owner has."""
    queue_timeout: timedelta | None
    """The maximum time for which it may be claimable without being claimed."""
    run_timeout: timedelta | None
    """The maximum duration of one attempt."""
    queue_expire_time: datetime | None
    """When `queue_timeout` ends, while it is pending."""
    run_expire_time: datetime | None
    """When `run_timeout` ends, while it is processed."""

    ttl: timedelta
    retry_after: timedelta
    """The suggested pause before the next read."""
    create_time: datetime
    start_time: datetime | None
    progress_time: datetime | None
    complete_time: datetime | None
    """When it was completed or failed."""
    cancel_time: datetime | None
    """When it was cancelled."""
    cancel_reason: str | None
    """The reason of the cancel, or of the request to cancel."""
    cancel_request_time: datetime | None
    """When a cancel with a grace was requested."""
    cancel_delivered_time: datetime | None
    """When its worker was first answered so."""
    cancel_expire_time: datetime | None
    """When the grace ends, while it is processed."""
    lease_expire_time: datetime | None
    expire_time: datetime

    traceparent: str | None
    """The trace in which it was created, if sampled, as the header of W3C Trace Context."""

    next_step: str | None
    """The next required event: ``CLAIM`` by a worker, ``RENEWAL`` of its lease, or its ``END``."""
    next_step_deadline: datetime | None
    """The deadline of the next step; None after the end."""

    replayed: bool = field(default=False, compare=False)
    """True if the call changed nothing, because an earlier one with the same request_id did."""
    joined: bool = field(default=False, compare=False)
    """True if `create` found this operation, which is active and has the same `unique_key`."""
