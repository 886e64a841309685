"""Webhooks as nouns: a delivery, its attempts, what it tells of, and the secrets that sign it."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from milepost.domain.transitions import TABLE, Transition

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from milepost.domain.operation import (
        OperationError,
        OperationId,
        Payload,
        Status,
        UnknownStatus,
    )

DELIVERY_ID: Final = re.compile(r"msg_[0-9a-f]{32}")
"""Matched whole. The id of a delivery is the ``webhook-id`` of every attempt."""
TEST_EVENT: Final = "webhook.test"
"""The type of a webhook that its receiver asked for, and that tells of no operation."""
_STATUS_AFTER: Final = {
    rule.event: rule.target for rule in TABLE.values() if rule.target is not None
}
_EXPIRED: Final = TABLE[Transition.EXPIRE].event
"""Happens to what is processed, which fails; and to what is pending, which is forgotten."""


def new_delivery_id() -> str:
    """Return a fresh random ``webhook-id``, for what is sent without being stored."""
    return f"msg_{secrets.token_hex(16)}"


class DeliveryStatus(StrEnum):
    """Where a delivery stands. All but PENDING are settled."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    EXHAUSTED = "EXHAUSTED"
    STOPPED = "STOPPED"


SETTLED: Final = frozenset(DeliveryStatus) - {DeliveryStatus.PENDING}


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt to send a webhook, as it is kept: never with what the receiver wrote."""

    number: int
    """Counts the attempts of the delivery, those before a redelivery included."""
    start_time: datetime
    duration: timedelta
    status_code: int | None
    """Of the answer; absent if there was none."""
    error: str | None
    """Why it failed, in words; absent if it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One webhook, to be sent for one event of one operation, as it stood when it was read."""

    id: str
    operation_id: OperationId
    revision: int
    type: str
    callback_url: str
    status: DeliveryStatus
    create_time: datetime
    next_attempt_time: datetime
    """When the next attempt is due. Means something only while PENDING."""
    settle_time: datetime | None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySelection:
    """Which deliveries of one owner to list. Empty or absent means: no condition."""

    statuses: tuple[DeliveryStatus, ...] = ()
    operation_id: OperationId | None = None


@dataclass(slots=True, kw_only=True)
class Subject:
    """What the body of a webhook says of its operation, living or gone."""

    function: str
    version: str | None
    status: Status | UnknownStatus
    result: Payload | None
    errors: tuple[OperationError, ...]
    metadata: str | None
    """A JSON object as text."""
    original_request_id: str | None
    create_time: datetime
    complete_time: datetime | None
    cancel_time: datetime | None
    trace_context: str | None


@dataclass(slots=True, kw_only=True)
class ClaimedDelivery:
    """A delivery that one dispatcher holds, for as long as its lease lasts."""

    id: str
    operation_id: OperationId
    revision: int
    type: str
    owner: str
    callback_url: str
    host: str
    create_time: datetime
    number: int
    """Of the attempt to be made."""
    tries: int
    """Attempts of this schedule that have failed so far."""
    lease: str
    """Whoever settles the delivery must still hold this."""
    claim_time: datetime
    """When it was claimed, by the clock of the database."""
    subject: Subject | None
    """Absent when the operation is gone and left nothing behind."""
    secrets: tuple[SealedSecret, ...]
    """What signs the webhooks of its owner now, the current one first; none before the first."""


@dataclass(slots=True, kw_only=True)
class Settlement:
    """What came of one attempt, and where it leaves the delivery."""

    id: str
    lease: str
    attempt: Attempt
    status: DeliveryStatus
    tries: int
    delay: timedelta
    """From now to the next attempt. Means something only while PENDING."""


def status_after(event: str, found: Status | UnknownStatus) -> Status | UnknownStatus:
    """Return the status that `event` led to, of an operation that is `found` in one.

    The event that removes an operation leads nowhere: what it was last is what is told.
    """
    if (
        event == _EXPIRED
        and found in TABLE[Transition.PURGE].sources - TABLE[Transition.EXPIRE].sources
    ):
        return found
    return _STATUS_AFTER.get(event) or found


# --- secrets ---


@dataclass(slots=True, kw_only=True)
class SealedSecret:
    """A signing secret as it is stored: encrypted under one of the operator's master keys."""

    owner: str
    key_id: str
    """Names the master key."""
    sealed: bytes
    create_time: datetime
    expire_time: datetime | None
    """When it stops signing; present once it was replaced."""
    request_id: str | None
    """Of the rotation that made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSecret:
    """A secret that signs webhooks. Its text never reaches a log."""

    key: bytes
    create_time: datetime
    expire_time: datetime | None

    def __repr__(self) -> str:
        """Show everything but the key."""
        return f"SigningSecret(create_time={self.create_time}, expire_time={self.expire_time})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSecrets:
    """The secrets of one owner that sign now."""

    current: SigningSecret
    previous: SigningSecret | None = None
    replayed: bool = False
    """An earlier call with the same request_id made the current one."""

    @property
    def keys(self) -> tuple[bytes, ...]:
        """What signs, the current one first."""
        both = (self.current, self.previous)
        return tuple(secret.key for secret in both if secret is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What came of a webhook that was sent as a test."""

    webhook_id: str
    attempt: Attempt
