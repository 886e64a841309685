"""Spans of webhooks: one for each attempt, in the trace in which the operation was created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.delivery import DeliveryStatus, status_after
from milepost.telemetry import conventions
from milepost.webhooks.sender import Failure

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from milepost.domain.delivery import Attempt, ClaimedDelivery, Settlement

_FAILURES: Final = {failure.value: failure.name.lower() for failure in Failure}
_OTHER: Final = "_OTHER"
"""The class of an error that has none, by the conventions of OpenTelemetry."""


def attributes_of(claimed: ClaimedDelivery) -> dict[str, str | int]:
    """Return the attributes of an attempt that begins."""
    found = conventions.http_post(claimed.callback_url, resent=claimed.tries) | {
        "milepost.operation.id": claimed.operation_id,
        "milepost.operation.revision": claimed.revision,
        "milepost.webhook.id": claimed.id,
        "milepost.webhook.type": claimed.type,
        "milepost.webhook.attempt": claimed.number,
    }
    if claimed.snapshot is not None:
        found["milepost.operation.function"] = claimed.snapshot.function
        found["milepost.operation.status"] = str(
            status_after(claimed.type, claimed.snapshot.status)
        )
    return found


def end_attempt(span: Span | None, settlement: Settlement) -> None:
    """End the span of an attempt with its outcome."""
    if span is None:
        return
    attempt = settlement.attempt
    if attempt.status_code is not None:
        span.set_attribute("http.response.status_code", attempt.status_code)
    span.set_attribute("milepost.webhook.status", settlement.status.value)
    is_delivered = settlement.status is DeliveryStatus.DELIVERED
    telemetry.end_span(span, None if is_delivered else _error(attempt))


def _error(attempt: Attempt) -> str:
    """Return the class of the error of an attempt: one of few texts."""
    if attempt.status_code is not None:
        return str(attempt.status_code)
    return _FAILURES.get(attempt.error or "", _OTHER)
