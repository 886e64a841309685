"""Values of webhooks: delivery, attempt, operation snapshot and signing secret."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Final

from milepost.domain.transitions import TABLE, Transition

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime, timedelta

    from milepost.domain.operation import (
        OperationError,
        OperationId,
        Payload,
        Status,
        UnknownStatus,
    )

DELIVERY_ID: Final = re.compile(r"msg_[0-9a-f]{32}")
"""To be used with ``fullmatch``. The id of a delivery is the ``webhook-id`` of every attempt."""
TEST_EVENT: Final = "webhook.test"
"""The type of a test webhook, which belongs to no operation."""
_STATUS_AFTER: Final = {
    rule.event: rule.target for rule in TABLE.values() if rule.target is not None
}
_EXPIRED: Final = TABLE[Transition.EXPIRE].event
"""The event of a processing operation that fails, and of a pending one that is purged."""


def new_delivery_id() -> str:
    """Return a random ``webhook-id``, for a webhook that is sent without being stored."""
    return f"msg_{secrets.token_hex(16)}"


class DeliveryStatus(StrEnum):
    """Status of a delivery. All but PENDING are settled."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    EXHAUSTED = "EXHAUSTED"
    STOPPED = "STOPPED"


SETTLED: Final = frozenset(DeliveryStatus) - {DeliveryStatus.PENDING}


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One delivery attempt as it is stored: without the body of the response."""

    number: int
    """Number of the attempt, counted over all redeliveries."""
    start_time: datetime
    duration: timedelta
    status_code: int | None
    """Of the response; absent without one."""
    error: str | None
    """Reason of the failure for people; absent after a success."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One webhook for one event of one operation, as it was read."""

    id: str
    operation_id: OperationId
    revision: int
    type: str
    callback_url: str
    status: DeliveryStatus
    create_time: datetime
    next_attempt_time: datetime
    """Time of the next attempt. Valid only while PENDING."""
    settle_time: datetime | None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySelection:
    """Filters of a list of deliveries. An empty or absent one is no condition."""

    collection: ClassVar = "deliveries"
    """Names the list in page tokens: never changes."""

    statuses: tuple[DeliveryStatus, ...] = ()
    operation_id: OperationId | None = None


@dataclass(slots=True, kw_only=True)
class OperationSnapshot:
    """The operation as the body of a webhook shows it; it may have been removed since."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryClaim:
    """Request of a dispatcher for due deliveries.

    A receiver is a host, or a destination: the receivers of one owner on a host.
    """

    limit: int
    per_host: int
    busy: Collection[str] = ()
    """Receivers that get no delivery."""
    on_trial: Collection[str] = ()
    """Receivers that get at most one delivery each."""
    on_trial_limit: int = 0
    """Bound of the deliveries to all receivers `on_trial`, beside `limit`."""
    lease: timedelta


@dataclass(slots=True, kw_only=True)
class ClaimedDelivery:
    """A delivery that one dispatcher has leased."""

    id: str
    operation_id: OperationId
    revision: int
    type: str
    owner: str
    callback_url: str
    host: str
    create_time: datetime
    number: int
    """Number of the next attempt."""
    tries: int
    """Failed attempts of the current schedule."""
    lease: str
    """Token that must still be current when the delivery is settled."""
    claim_time: datetime
    """Time of the claim, by the clock of the database."""
    snapshot: OperationSnapshot | None
    """Absent if the operation is removed and no payload was stored for the delivery."""
    secrets: tuple[SealedSecret, ...]
    """Secrets that sign the webhooks of the owner now, the current one first; may be empty."""

    @property
    def destination(self) -> str:
        """The receivers of the owner on the host. It equals no host, which has no space."""
        return f"{self.host} {self.owner}"


@dataclass(slots=True, kw_only=True)
class Settlement:
    """One attempt, and the state of its delivery afterwards."""

    id: str
    lease: str
    attempt: Attempt
    status: DeliveryStatus
    tries: int
    delay: timedelta
    """Time from now to the next attempt. Valid only while PENDING."""


def status_after(event: str, found: Status | UnknownStatus) -> Status | UnknownStatus:
    """Return the status of an operation after `event`; `found` is its last known status.

    The event of a removal has no status after it: the last known status is returned.
    """
    if (
        event == _EXPIRED
        and found in TABLE[Transition.PURGE].sources - TABLE[Transition.EXPIRE].sources
    ):
        return found
    return _STATUS_AFTER.get(event) or found


# --- secrets ---


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """A signing secret as it is stored: encrypted under one of the operator's master keys.

    Frozen, because what it opens to is cached by it.
    """

    owner: str
    key_id: str
    """Id of the master key."""
    sealed: bytes
    create_time: datetime
    expire_time: datetime | None
    """Time at which it stops signing; present once it is replaced."""
    request_id: str | None
    """Of the rotation that created it."""


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
    """True if an earlier call with the same request_id created the current one."""

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The signing keys, the current one first."""
        both = (self.current, self.previous)
        return tuple(secret.key for secret in both if secret is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The attempt of a test webhook."""

    webhook_id: str
    attempt: Attempt
