"""WebhookService: signing secrets and deliveries of callers."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from milepost.api.convert import Fields
from milepost.api.messages import redacted_url, set_duration, set_timestamp
from milepost.domain.delivery import (
    DELIVERY_ID,
    SETTLED,
    DeliverySelection,
    DeliveryStatus,
)
from milepost.gen.milepost.v1 import webhook_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from milepost.api.call import ApiCall
    from milepost.domain.delivery import Attempt, Delivery, SigningSecret, SigningSecrets
    from milepost.domain.limits import Limits
    from milepost.tracking.webhooks import Webhooks

_STATUS_PREFIX: Final = "DELIVERY_STATUS_"
_STATUS_NUMBERS: Final[Mapping[DeliveryStatus, pb.DeliveryStatus.ValueType]] = {
    status: pb.DeliveryStatus.Value(f"{_STATUS_PREFIX}{status}") for status in DeliveryStatus
}
_STATUS_OF: Final = {int(number): status for status, number in _STATUS_NUMBERS.items()}
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the prefix lets scanners recognise a secret


class WebhookService:
    """Convert each request, await its use case, convert the result."""

    def __init__(self, webhooks: Webhooks, limits: Limits) -> None:
        """Serve `webhooks`; check requests against `limits`."""
        self._webhooks = webhooks
        self._limits = limits

    async def GetSigningSecret(
        self, _request: pb.GetSigningSecretRequest, call: ApiCall
    ) -> pb.GetSigningSecretResponse:
        """See the proto."""
        response = pb.GetSigningSecretResponse()
        _fill_secrets(response, await self._webhooks.secrets(call.principal))
        return response

    async def RotateSigningSecret(
        self, request: pb.RotateSigningSecretRequest, call: ApiCall
    ) -> pb.RotateSigningSecretResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        request_id = fields.request_id()
        fields.done()
        rotated = await self._webhooks.rotate(call.principal, request_id)
        response = pb.RotateSigningSecretResponse(replayed=rotated.replayed)
        _fill_secrets(response, rotated)
        return response

    async def ListDeliveries(
        self, request: pb.ListDeliveriesRequest, call: ApiCall
    ) -> pb.ListDeliveriesResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        selection, page_size = _selection(fields, request), fields.page_size()
        fields.done()
        deliveries, next_page_token = await self._webhooks.list(
            call.principal, selection, page_size=page_size, page_token=request.page_token
        )
        response = pb.ListDeliveriesResponse(next_page_token=next_page_token)
        for delivery in deliveries:
            _fill_delivery(response.deliveries.add(), delivery)
        return response

    async def RedeliverWebhook(
        self, request: pb.RedeliverWebhookRequest, call: ApiCall
    ) -> pb.RedeliverWebhookResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        if DELIVERY_ID.fullmatch(request.delivery_id) is None:
            fields.refuse("delivery_id", f"must match {DELIVERY_ID.pattern}, matched whole")
        request_id = fields.request_id()
        fields.done()
        delivery, replayed = await self._webhooks.redeliver(
            call.principal, request.delivery_id, request_id
        )
        response = pb.RedeliverWebhookResponse(replayed=replayed)
        _fill_delivery(response.delivery, delivery)
        return response

    async def SendTestWebhook(
        self, request: pb.SendTestWebhookRequest, call: ApiCall
    ) -> pb.SendTestWebhookResponse:
        """See the proto."""
        fields = Fields(request, self._limits)
        url = fields.callback_url(required=True)
        fields.done()
        probe = await self._webhooks.probe(call.principal, url or "")
        response = pb.SendTestWebhookResponse(webhook_id=probe.webhook_id)
        _fill_attempt(response.attempt, probe.attempt)
        return response


def _selection(fields: Fields, request: pb.ListDeliveriesRequest) -> DeliverySelection:
    for n, number in enumerate(request.statuses):
        if number not in _STATUS_OF:
            fields.refuse(f"statuses[{n}]", f"is not a status: {number}")
    statuses = {_STATUS_OF[number] for number in request.statuses if number in _STATUS_OF}
    return DeliverySelection(
        statuses=tuple(sorted(statuses)),
        operation_id=fields.operation_id() if request.HasField("operation_id") else None,
    )


# --- responses ---


def _fill_secrets(
    response: pb.GetSigningSecretResponse | pb.RotateSigningSecretResponse, secrets: SigningSecrets
) -> None:
    _fill_secret(response.current, secrets.current)
    if secrets.previous is not None:
        _fill_secret(response.previous, secrets.previous)


def _fill_secret(message: pb.SigningSecret, secret: SigningSecret) -> None:
    message.value = SECRET_PREFIX + base64.b64encode(secret.key).decode()
    set_timestamp(message.create_time, secret.create_time)
    if secret.expire_time is not None:
        set_timestamp(message.expire_time, secret.expire_time)


def _fill_delivery(message: pb.Delivery, delivery: Delivery) -> None:
    message.id = delivery.id
    message.operation_id = delivery.operation_id
    message.revision = delivery.revision
    message.event_type = delivery.type
    message.callback_url = redacted_url(delivery.callback_url)
    message.status = _STATUS_NUMBERS[delivery.status]
    set_timestamp(message.create_time, delivery.create_time)
    if delivery.status not in SETTLED:
        set_timestamp(message.next_attempt_time, delivery.next_attempt_time)
    if delivery.settle_time is not None:
        set_timestamp(message.settle_time, delivery.settle_time)
    for attempt in delivery.attempts:
        _fill_attempt(message.attempts.add(), attempt)


def _fill_attempt(message: pb.DeliveryAttempt, attempt: Attempt) -> None:
    message.number = attempt.number
    set_timestamp(message.start_time, attempt.start_time)
    set_duration(message.duration, attempt.duration)
    if attempt.status_code is not None:
        message.status_code = attempt.status_code
    if attempt.error is not None:
        message.error = attempt.error
