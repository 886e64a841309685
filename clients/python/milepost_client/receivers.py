"""The calls of callers about webhooks: signing secrets, deliveries, redelivery and tests."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from milepost_client.connection import Connection
from milepost_client.convert import optional_field, time_field
from milepost_client.gen.milepost.v1 import webhook_service_pb2 as pb
from milepost_client.pages import pages

_PREFIX: Final = "DELIVERY_STATUS_"


class DeliveryStatus(StrEnum):
    """Status of a delivery."""

    UNKNOWN = "UNKNOWN"
    """A status of a newer service that this client does not know."""
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    EXHAUSTED = "EXHAUSTED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSecret:
    """A secret that signs your webhooks. Keep `value` as safe as a password."""

    value: str
    create_time: datetime | None
    expire_time: datetime | None
    """Time at which it stops signing; only after a rotation."""

    def __repr__(self) -> str:
        """Show everything but the secret."""
        return f"SigningSecret(create_time={self.create_time}, expire_time={self.expire_time})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSecrets:
    """The secrets that sign your webhooks; for 24 hours after a rotation, both."""

    current: SigningSecret
    previous: SigningSecret | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One attempt to send a webhook."""

    number: int
    start_time: datetime | None
    duration: timedelta
    status_code: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One webhook, for one event of one operation."""

    id: str
    """The ``webhook-id`` of every attempt."""
    operation_id: str
    revision: int
    event_type: str
    callback_url: str
    status: DeliveryStatus
    create_time: datetime | None
    next_attempt_time: datetime | None
    settle_time: datetime | None
    attempts: tuple[DeliveryAttempt, ...]


class Receivers(Connection):
    """The webhooks of a caller. `milepost_client.webhooks` verifies them."""

    async def signing_secrets(self) -> SigningSecrets:
        """Return the secrets that sign your webhooks.

        Your first operation with a callback URL creates the secret, and so does a rotation.

        Raises:
            SigningSecretNotFound: You have no secret yet.
            WebhooksNotConfigured: This service sends no webhooks.
        """
        calls = self._calls
        answer = await calls.send(calls.webhooks.GetSigningSecret, pb.GetSigningSecretRequest())
        return _secrets(answer)

    async def rotate_signing_secret(self, *, request_id: str | None = None) -> SigningSecrets:
        """Create a secret that replaces the current one, if any; for 24 hours both sign.

        Args:
            request_id: Makes the call repeatable.

        Raises:
            WebhooksNotConfigured: This service sends no webhooks.
        """
        calls = self._calls
        request = pb.RotateSigningSecretRequest(request_id=request_id)
        answer = await calls.send(calls.webhooks.RotateSigningSecret, request)
        return _secrets(answer)

    async def deliveries(
        self,
        *,
        operation_id: str | None = None,
        statuses: Iterable[DeliveryStatus] = (),
        page_size: int = 0,
    ) -> AsyncIterator[Delivery]:
        """Iterate over your webhooks that match every filter, newest first, over all pages.

        A rate limit refuses the first page, and delays each of the others for up to 5 minutes.

        Args:
            operation_id: Id of the operation; None means all.
            statuses: Statuses of the webhooks; empty means all.
            page_size: Number of deliveries per call, at most 100.
        """
        calls = self._calls
        request = pb.ListDeliveriesRequest(
            page_size=page_size,
            operation_id=operation_id,
            statuses=[pb.DeliveryStatus.Value(f"{_PREFIX}{status}") for status in statuses],
        )
        async for page in pages(calls, calls.webhooks.ListDeliveries, request):
            for delivery in page.deliveries:
                yield _delivery(delivery)

    async def redeliver(self, delivery_id: str, *, request_id: str | None = None) -> Delivery:
        """Send a settled webhook again, with the same id.

        Args:
            delivery_id: Id of the delivery.
            request_id: Makes the call repeatable.

        Raises:
            DeliveryNotFound: You have no such delivery.
            IllegalTransition: The delivery is not settled.
            WebhooksNotConfigured: This service sends no webhooks.
        """
        calls = self._calls
        request = pb.RedeliverWebhookRequest(delivery_id=delivery_id, request_id=request_id)
        return _delivery((await calls.send(calls.webhooks.RedeliverWebhook, request)).delivery)

    async def send_test_webhook(self, callback_url: str) -> DeliveryAttempt:
        """Send one test webhook to a URL at once, and return the attempt.

        Args:
            callback_url: URL of the receiver.

        Raises:
            InvalidRequest: The URL is refused.
            SigningSecretNotFound: You have no secret yet.
            WebhooksNotConfigured: This service sends no webhooks.
        """
        calls = self._calls
        request = pb.SendTestWebhookRequest(callback_url=callback_url)
        return _attempt((await calls.send(calls.webhooks.SendTestWebhook, request)).attempt)


def _secrets(
    answer: pb.GetSigningSecretResponse | pb.RotateSigningSecretResponse,
) -> SigningSecrets:
    previous = _secret(answer.previous) if answer.HasField("previous") else None
    return SigningSecrets(current=_secret(answer.current), previous=previous)


def _secret(message: pb.SigningSecret) -> SigningSecret:
    return SigningSecret(
        value=message.value,
        create_time=time_field(message, "create_time"),
        expire_time=time_field(message, "expire_time"),
    )


def _delivery(message: pb.Delivery) -> Delivery:
    return Delivery(
        id=message.id,
        operation_id=message.operation_id,
        revision=message.revision,
        event_type=message.event_type,
        callback_url=message.callback_url,
        status=_status(message.status),
        create_time=time_field(message, "create_time"),
        next_attempt_time=time_field(message, "next_attempt_time"),
        settle_time=time_field(message, "settle_time"),
        attempts=tuple(map(_attempt, message.attempts)),
    )


def _status(number: pb.DeliveryStatus.ValueType) -> DeliveryStatus:
    known = {int(value): name.removeprefix(_PREFIX) for name, value in pb.DeliveryStatus.items()}
    name = known.get(number, "")
    return DeliveryStatus.__members__.get(name, DeliveryStatus.UNKNOWN)


def _attempt(message: pb.DeliveryAttempt) -> DeliveryAttempt:
    return DeliveryAttempt(
        number=message.number,
        start_time=time_field(message, "start_time"),
        duration=message.duration.ToTimedelta(),
        status_code=optional_field(message, "status_code"),
        error=optional_field(message, "error"),
    )
